#!/bin/sh
# Run a program that sends mail, and check that one message comes within ten seconds.
# The program finds where to send it in SMTP_HOST and SMTP_PORT.
# The message is kept in the directory MAILDIR, a Maildir, which need not exist.
set -eu

folder=$(mktemp -d)
mkfifo "$folder/listening"
lazr-smtptest --quiet --port 0 --count 1 --timeout 10 --maildir "$MAILDIR" \
  >"$folder/listening" &
sink=$!
trap 'kill "$sink" 2>/dev/null && wait "$sink" || true; rm -r "$folder"' EXIT
read -r _ _ SMTP_HOST _ SMTP_PORT <"$folder/listening" # listening on HOST port PORT
export SMTP_HOST SMTP_PORT

"$@"
wait "$sink" # its exit status is that of the script

grep -h "^Subject:" "$MAILDIR"/new/*
