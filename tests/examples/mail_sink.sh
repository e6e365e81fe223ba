#!/usr/bin/env bash
# Run a program that sends mail, and see to it that one message comes within
# ten seconds.  The program is told where to send it by SMTP_HOST and SMTP_PORT.
# The message is kept in the directory MAILDIR, a Maildir, which need not exist.
set -euo pipefail

coproc SINK { exec lazr-smtptest --port 0 --count 1 --timeout 10 --maildir "$MAILDIR"; }
sink=$SINK_PID
read -r _ _ SMTP_HOST _ SMTP_PORT <&"${SINK[0]}" # listening on HOST port PORT
export SMTP_HOST SMTP_PORT

"$@"
wait "$sink" # its exit status is that of the script

grep -h "^Subject:" "$MAILDIR"/new/*
