"""What each error says, whole, and in which situation.

`SITUATIONS` is the table.  A line of Python makes something go wrong for real;
what it calls is in `error_situations`, or public.  To the right of it, or below,
is what is said: by the server to its client, where that was asked, and then by
the error: its class, its attributes, and its text from the first word to the
last.  Attributes that only say where the server is, or are in the text, are
left out, but looked at.  What differs from run to run is replaced, by a word in
capitals: PID, PORT, N for measured seconds, REASON and ITS for the system's own
words and number, STACK and TRACEBACK.

`test_no_raise_goes_unheard` looks for what the package raises and the table
does not have.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import multiprocessing
import os
import pickle
import queue
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from error_situations import NAMELESS, Stage
from helpers import STAGES, gone

import lazr_smtptest
from lazr_smtptest import SMTPTestError, StartError
from lazr_smtptest._limits import limits_set
from lazr_smtptest._wire.sharing import LABEL
from lazr_smtptest.checks import CODES
from lazr_smtptest.sessions import SESSION_CODES

SERVER = "the server process PID on localhost port PORT"

TRACED = (
    ", for the server on localhost port PORT.  "
    "Look at the end of this traceback, not at the call that raised this:\n\nTRACEBACK"
)

NO_STACK = (
    "within 0.2 seconds, and does not show its stack: is it stopped, or the machine overloaded?  "
    "Run fewer things at once"
)

LOOK_FOR_THE_KILLER = (
    "Look for what killed it (the system itself does so when memory runs out), "
    "and call start() for a new one"
)

MUST_REPLY = "must return a reply, such as '250 OK', not None"

NONE_OR_REPLY = "handle_message must return None or a reply, such as '553 5.7.1 No'"

ONE_OR_EACH = "handle_DATA must return one reply, or one for each recipient, 1 here"

TRUE_OR_FALSE = "auth must return True, False or a refusal, such as '535 5.7.8 Locked'"

FOR_EVER = (
    "on the event loop, put() would wait for ever for what the loop has yet to read: "
    "await asyncio.get_running_loop().run_in_executor(None, self.queue.put, message)"
)

NOT_SEEN_TO = (
    "the test process did not fill its queue within 0.2 seconds: "
    "does the queue's put wait, or do threads get no turn?"
)

YET_TO_COME = "If it was yet to come, give a longer timeout; sessions() shows what clients did"

IN_PEM_FORM = (
    "; certfile must have the certificate, and keyfile or certfile its private key, "
    "in PEM form, and password the passphrase of the key if it has one"
)

#: Octets of a UNIX socket's path; see unix(7).
LONGEST_PATH = 107 if sys.platform == "linux" else 103

HOST_ALONE = "must be a name or an address alone, without a port, brackets or a scheme"

SERVER_OPTIONS = (
    "unix_socket, lmtp, tls, auth, auth_mechanisms, auth_required, auth_require_tls, hide, offer, "
    "hostname, ident, data_size_limit, line_length_limit, recipient_limit, idle_timeout, "
    "max_connections, proxy_protocol, reset_on_rset"
)

ALL_OPTIONS = (
    "host, port, start_method, start_timeout, stop_timeout, reset_timeout, uvloop, "
    f"{SERVER_OPTIONS}"
)

SHARED = "the shared server process PID on localhost port PORT"

NO_LEASE = "LeaseError: cannot connect to a shared server"

#: What follows after the reason why no lease can be had.
TAKE_KEY = (
    ".  Take address and key from the SharedController, while that runs; its log may say more"
)

THE_ADDRESS = "address must be what a SharedController has for it, a path or host:port"

THE_TEMPLATE = (
    "template must have {name} and {lease} in it, each once and apart, such as "
    "'{name}@{lease}.example.test' or '{name}+{lease}@example.com'"
)

NO_CLAIM = "claim() takes addresses, such as 'kim@example.com' or '*@example.com'"

OWN_ADDRESS = "take an address of your own, by address(), or run these tests one after the other"

NOT_YOUR_OWN = (
    ".  Use a stage from RCPT on; or let faults affect all mail: faults='all', or "
    "smtptest_shared_faults = all in the ini file"
)

HOOK = "pytest_smtptest_shared_options"

THERE_BEFORE = (
    "with smtptest_shared there is one server for all tests, and it is started before them: it "
    "cannot have {} for this one.  Return options from the hook "
    "pytest_smtptest_shared_options(config) in conftest.py, or have smtptest_factory() start a "
    "server for this test"
)

HEADLINE = "- from <kim@example.com> to <lee@example.com>, subject"

#: How a traceback begins.
TRACEBACK = re.escape("Traceback (most recent call last):\n")

ERRNOS = {**errno.errorcode, socket.EAI_NONAME: "EAI_NONAME"}

# fmt: off
SITUATIONS = {
    # Starting and stopping.
    "running().start()":
        "AlreadyRunning: the server runs already, in process PID on localhost port PORT: "
        "call stop() first",
    "Controller(QueueServer('localhost', 0, running().queue)).start()":
        f"AlreadyRunning: this server's queue is filled by another controller's, {SERVER}: "
        "give each controller a queue of its own",
    **{
        f"QueueController(port=9025).{call}":
            f"NotRunning(host='localhost', port=9025): {call.partition('(')[0]}() needs a running "
            "server, and none runs on localhost port 9025: call start() first"
        for call in ("reset()", "fault('RCPT', '450 No')", "gate('RCPT')", "sessions()")
    },
    "QueueController(port=9025).connections":
        "NotRunning(host='localhost', port=9025): connections needs a running server, "
        "and none runs on localhost port 9025: call start() first",
    "stopped(paused()).connections":
        f"ServerDied(exitcode=-9, lost=1): {SERVER} did not stop when asked, and was ended by "
        "SIGKILL; 1 message that it had accepted is lost; what clients did is not known.  The log "
        "shows what kept it; if it was only slow, give a longer stop_timeout",
    "busy(LONG_NOOP).connections":
        f"ServerStuck(elapsed=0.2): {SERVER} did not answer connections() within 0.2 seconds.  "
        "Look in its stack for what keeps it, or give a longer reset_timeout:\nSTACK in "
        "handle_NOOP",
    "QueueController().port":
        "NotRunning(host='localhost'): the server on localhost has no port before it is started, "
        "since it was asked to take a free one: call start() first, or make it with a port of "
        "your own",
    "QueueController().reset()":
        "NotRunning(host='localhost'): reset() needs a running server, and none runs on localhost,"
        " a free port: call start() first",
    "server = own(); fault = server.fault('RCPT', '450 No'); server.stop(); fault.remove()":
        f"NotRunning: {SERVER} has been stopped: call start(), and make faults and gates anew",
    "stop_meanwhile(own())":
        f"NotRunning: {SERVER} was stopped, by another thread, while this call waited for it: "
        "call stop() when no other thread uses it any more",
    "in_a_child(running().queue.get_nowait)":
        f"NotRunning: {SERVER} belongs to process PARENT, which started it; this is process CHILD,"
        " a child of that.  Connect to it from here, and call its controller there",
    "MessageQueue().expect_none()":
        "NotRunning: no message can come where no server was started: call start() first",
    "Controller(Unpicklable(), start_method='spawn').start()":
        "StartError: the server for localhost port PORT cannot start: the attribute lock (lock) "
        "of this Unpicklable cannot be pickled, which it must be to reach a process that is not "
        "forked (REASON).  Either make it in the server process, on first use, or use "
        "start_method='fork'",
    "Controller(type('Local', (Server,), {})(), start_method='spawn').start()":
        "StartError: the server for localhost port PORT cannot start: this Local cannot be "
        "pickled, which it must be to reach a process that is not forked (REASON).  "
        "Either define the class at the top level of a module or use start_method='fork'",
    "Controller(Unreturnable(), start_method='forkserver').start()":
        f"StartError(exitcode=70): {SERVER} could not unpickle its server: LookupError('not here')"
        ".  All that the server has must be importable and picklable there, "
        "or use start_method='fork'",
    "Controller(Awkward('raise LookupError(7)'), start_method='fork').start()":
        f"StartError(exitcode=70): {SERVER} could not make a session for Awkward: LookupError(7)"
        ".  Mend what a session needs of it: its attributes, and its aiosmtpd hooks",
    "Controller(Awkward('os.kill(os.getpid(), signal.SIGKILL)'), start_method='fork').start()":
        f"StartError(exitcode=-9): {SERVER} was killed by SIGKILL before it served.  Its standard "
        "error may say why.  Unless it is forked, it imports the main module again, "
        "which must be a file, and guard what it runs by __name__ == '__main__'",
    "Controller(Awkward('raise SystemExit(5)'), start_method='fork').start()":
        f"StartError(exitcode=70): {SERVER} ended with exit code 70 before it served.  "
        "Its last words say why:\nTRACEBACK\nSystemExit: 5",
    "Controller(Awkward('time.sleep(60)'), start_method='fork', start_timeout=1).start()":
        f"StartTimeout(elapsed=1.0): {SERVER} was started, and did not report that it serves "
        "within 1 seconds.  Look for what keeps it, or give a longer start_timeout on a busy "
        "machine.  It was here:\nSTACK in auth_AWKWARD",
    f"limited('RLIMIT_AS', {2**46}); "
    "Controller(Awkward('os.kill(os.getpid(), signal.SIGKILL)'), start_method='fork').start()":
        f"StartError(exitcode=-9): {SERVER} was killed by SIGKILL before it served.  Its standard "
        "error may say why.  Unless it is forked, it imports the main module again, "
        "which must be a file, and guard what it runs by __name__ == '__main__'.  "
        f"It may have run out of memory: RLIMIT_AS (ulimit -v) is {2**46}",
    "limited('RLIMIT_NOFILE', 0); QueueController(port=9025).start()":
        "StartError: cannot start the server on localhost port PORT: REASON; "
        "a limit is reached: RLIMIT_NOFILE (ulimit -n) is 0",
    "lose_fork_server(keep_name=False); QueueController(start_method='forkserver').start()":
        "StartError: no process can be started for the server on localhost port PORT: "
        "[Errno 2] REASON",
    "lose_fork_server(keep_name=True); QueueController(start_method='forkserver').start()":
        "StartError: no process can be started for the server on localhost port PORT: "
        "multiprocessing's fork server has ended.  Its standard error may say why.  "
        "These limits are set: LIMITS",
    "Controller(Server(), start_method='spawn', start_timeout=0.001).start()":
        f"StartTimeout(elapsed=0.001): {SERVER} was started, and did not report that it serves "
        "within 0.001 seconds.  Look for what keeps it, or give a longer start_timeout on a busy "
        "machine",
    # A server process that dies.
    "killed(own()).queue.get_nowait()":
        f"ServerDied(exitcode=-9): {SERVER} was killed by SIGKILL; "
        f"no message that it had accepted is lost.  {LOOK_FOR_THE_KILLER}",
    "killed(own(), NAMELESS).queue.get_nowait()":
        f"ServerDied(exitcode={-NAMELESS}): {SERVER} was killed by signal {NAMELESS}; "
        f"no message that it had accepted is lost.  {LOOK_FOR_THE_KILLER}",
    "killed_by(own(Obedient), 'os._exit(9)').queue.get_nowait()":
        f"ServerDied(exitcode=9): {SERVER} ended with exit code 9; no message that it had "
        "accepted is lost.  Look for what exits in its handlers, and call start() for a new one",
    "killed_by(own(Obedient), 'ctypes.string_at(0)').queue.get_nowait()":
        f"ServerDied(exitcode=-11): {SERVER} crashed with SIGSEGV; no message that it had "
        "accepted is lost.  Look for the call into C code that did it, and call start() for a "
        "new one.  Its last words:\nSTACK in handle_message",
    "killed(send_large(own(), 1)).queue.get_nowait()":
        f"ServerDied(exitcode=-9, lost=1): {SERVER} was killed by SIGKILL; "
        f"1 message that it had accepted is lost.  {LOOK_FOR_THE_KILLER}",
    "killed(send_large(own(), 3)).queue.get_nowait()":
        f"ServerDied(exitcode=-9, lost=3): {SERVER} was killed by SIGKILL; "
        f"3 messages that it had accepted are lost.  {LOOK_FOR_THE_KILLER}",
    "stopped(paused()).sessions()":
        f"ServerDied(exitcode=-9, lost=1): {SERVER} did not stop when asked, and was ended by "
        "SIGKILL; 1 message that it had accepted is lost; what clients did is not known.  The log "
        "shows what kept it; if it was only slow, give a longer stop_timeout",
    "stopped(paused()).queue.get_nowait()":
        f"ServerDied(exitcode=-9, lost=1): {SERVER} did not stop when asked, and was ended by "
        "SIGKILL; 1 message that it had accepted is lost.  The log shows what kept it; "
        "if it was only slow, give a longer stop_timeout",
    "killed(unreaped()).queue.get_nowait()":
        f"ServerDied: {SERVER} ended with an unknown exit code; no message that it had "
        "accepted is lost.  Do not ignore SIGCHLD, so that there is an exit code, "
        "and call start() for a new one",
    # A server process that is stuck.
    "busy(*LONG_MAIL).reset()":
        f"ServerStuck(elapsed=0.2): {SERVER} did not answer reset() within 0.2 seconds.  Look "
        "in its stack for what keeps it, or give a longer reset_timeout:\nSTACK in handle_message",
    **{
        f"busy(LONG_NOOP).{call}":
            f"ServerStuck(elapsed=0.2): {SERVER} did not answer {call.partition('(')[0]}() "
            "within 0.2 seconds.  Look in its stack for what keeps it, or give a longer "
            "reset_timeout:\nSTACK in handle_NOOP"
        for call in ("fault('RCPT', '450 No')", "gate('RCPT')", "sessions()")
    },
    **{
        f"busy(LONG_NOOP).{order}.{call}":
            f"ServerStuck(elapsed=0.2): {SERVER} did not answer {call.partition('(')[0]}() "
            "within 0.2 seconds.  Look in its stack for what keeps it:\nSTACK in handle_NOOP"
        for order, call in (
            ("its_fault", "fired"), ("its_fault", "remove()"),
            ("its_gate", "wait_parked(timeout=0)"), ("its_gate", "release()"),
        )
    },
    "paused().reset()":
        f"ServerStuck(elapsed=0.2): {SERVER} did not answer reset() {NO_STACK}, "
        "or give a longer reset_timeout",
    **{
        f"paused().{call}":
            f"ServerStuck(elapsed=0.2): {SERVER} had more to send and did not send it {NO_STACK}"
        for call in ("queue.get_nowait()", "queue.qsize()", "queue.messages", "wait(0.01)")
    },
    "paused().fault('EOM', '450 ' + 'no ' * 30_000)":
        f"ServerStuck(elapsed=0.2): {SERVER} took no more requests {NO_STACK}, "
        "or give a longer reset_timeout",
    "deliver(own(Obedient, uvloop=False, reset_timeout=SOON), 'close_pipes()').sessions()":
        f"250 2.0.0 OK\nServerStuck(elapsed=0.2): {SERVER} did not answer sessions() within 0.2 "
        "seconds.  Look in its stack for what keeps it, or give a longer reset_timeout:\nSTACK",
    # Handlers that fail.
    "deliver(own(Obedient), 'raise ValueError(7)').reset()":
        "451 4.3.0 Error: (ValueError) 7\n"
        f"HandlerError: Obedient.handle_message raised ValueError: 7{TRACED}",
    "deliver(own(Obedient), 'raise KeyError').reset()":
        "451 4.3.0 Error: (KeyError)\n"
        f"HandlerError: Obedient.handle_message raised KeyError{TRACED}",
    "deliver(own(Obedient), 'raise ValueError(chr(10).join([\"one\", \"and two\"]))').reset()":
        "451 4.3.0 Error: (ValueError) one and two\n"
        f"HandlerError: Obedient.handle_message raised ValueError: one and two{TRACED}",
    "deliver(own(Obedient), 'raise ValueError(\"no \" * 1000)').reset()":
        f"451 4.3.0 Error: (ValueError) {('no ' * 134)[:400]}\n"
        f"HandlerError: Obedient.handle_message raised ValueError: {('no ' * 134)[:400]}{TRACED}",
    "deliver(own(Obedient), 'raise queue.Full(7)').reset()":
        "452 4.3.1 Error: (Full) 7\n"
        f"HandlerError: Obedient.handle_message raised Full: 7{TRACED}",
    f"deliver(own(Obedient), 'raise OSError({errno.ENOSPC}, \"No space\")').reset()":
        f"452 4.3.1 Error: (OSError) [Errno {errno.ENOSPC}] No space\nHandlerError: "
        f"Obedient.handle_message raised OSError: [Errno {errno.ENOSPC}] No space{TRACED}",
    "run(Controller(FailingReset())).reset()":
        f"HandlerError: FailingReset.reset raised LookupError: nothing to reset{TRACED}",
    "say(own(Hooked), ENVELOPE[0], 'RCPT TO:<broken@example.com>').queue.get_nowait()":
        "451 4.3.0 Error: (KeyError) 'broken'\n"
        f"HandlerError: Hooked.handle_RCPT raised KeyError: 'broken'{TRACED}",
    **{
        f"log_in(run(QueueController(auth=lambda *_: {returned})), 'PLAIN').queue.get_nowait()":
            f"451 4.3.0 Error: ({error}) {TRUE_OR_FALSE}{text}\n"
            f"HandlerError: QueueServer.auth raised {error}: {TRUE_OR_FALSE}{text}{TRACED}"
        for returned, error, text in [
            ("7", "TypeError", ", not a int"),
            ("'235 Yes'", "ValueError", ", not '235 Yes'"),
            ("'no'", "ValueError", ": reply must begin with a reply code, such as "
                "'451 4.7.1 Later', not 'no'"),
        ]
    },
    "say(own(Forgetful), 'MAIL FROM:<kim@example.com>').queue.get_nowait()":
        f"451 4.3.0 Error: (TypeError) handle_MAIL {MUST_REPLY}\n"
        f"HandlerError: Forgetful.handle_MAIL raised TypeError: handle_MAIL {MUST_REPLY}{TRACED}",
    "say(own(Obedient), 'NOOP value = None').queue.get_nowait()":
        f"451 4.3.0 Error: (TypeError) handle_NOOP {MUST_REPLY}\n"
        f"HandlerError: Obedient.handle_NOOP raised TypeError: handle_NOOP {MUST_REPLY}{TRACED}",
    "server = run(Controller(Repetitive('localhost', 0, MessageQueue(), lmtp=True))); "
    "say(server, 'LHLO x', *ENVELOPE, '.').server.queue.get_nowait()":
        f"451 4.3.0 Error: (ValueError) {ONE_OR_EACH}, not 2\n"
        f"HandlerError: Repetitive.handle_DATA raised ValueError: {ONE_OR_EACH}, not 2{TRACED}",
    "deliver(own(Returning), '7').queue.get_nowait()":
        f"451 4.3.0 Error: (TypeError) {NONE_OR_REPLY}, not 7\n"
        f"HandlerError: Returning.handle_message raised TypeError: {NONE_OR_REPLY}, not 7{TRACED}",
    "deliver(own(Returning), '\"no\"').queue.get_nowait()":
        f"451 4.3.0 Error: (ValueError) {NONE_OR_REPLY}: reply must begin with a reply code, such "
        "as '451 4.7.1 Later', not 'no'\n"
        f"HandlerError: Returning.handle_message raised ValueError: {NONE_OR_REPLY}: reply must "
        f"begin with a reply code, such as '451 4.7.1 Later', not 'no'{TRACED}",
    "deliver(own(Returning), '\"354 Go\"').queue.get_nowait()":
        f"451 4.3.0 Error: (ValueError) {NONE_OR_REPLY}, and none of 3xx, not '354 Go'\n"
        f"HandlerError: Returning.handle_message raised ValueError: {NONE_OR_REPLY}, and none of "
        f"3xx, not '354 Go'{TRACED}",
    "deliver(with_queue(QueueServer, Refusing()), 'pass').reset()":
        "451 4.3.0 Error: (RuntimeError) this queue is closed for the season\nHandlerError: "
        f"Refusing.put raised RuntimeError: this queue is closed for the season{TRACED}",
    "deliver(with_queue(QueueServer, Drained()), 'pass').reset()":
        "250 2.0.0 OK\nHandlerError: "
        f"Drained.get_nowait raised RuntimeError: nothing leaves this queue{TRACED}",
    "say(with_queue(Obedient, queue.Queue()), 'NOOP self.queue.put(7)').reset()":
        f"451 4.3.0 Error: (RuntimeError) {FOR_EVER}\n"
        f"HandlerError: Obedient.handle_NOOP raised RuntimeError: {FOR_EVER}{TRACED}",
    "deliver(with_raising_log(with_queue(Obedient, queue.Queue())), "
    "'logging.getLogger(\"app\").warning(7)').stop()":
        "250 2.0.0 OK\nHandlerError: "
        f"a log handler raised RuntimeError: no records today{TRACED}",
    "deliver(with_slow_queue(QueueServer), 'pass').reset()":
        f"451 4.3.0 Error: (TimeoutError) {NOT_SEEN_TO}\n"
        f"HandlerError: QueueServer.reset raised TimeoutError: {NOT_SEEN_TO}{TRACED}",
    "s = deliver(with_slow_queue(Obedient), 'pass'); s.server.queue.may_go_on.set(); s.reset()":
        f"451 4.3.0 Error: (TimeoutError) {NOT_SEEN_TO}\n"
        f"HandlerError: Obedient.handle_message raised TimeoutError: {NOT_SEEN_TO}{TRACED}",
    # Messages that do not come, or do.
    "running().wait(0.01, subject='lunch')":
        "MessageNotReceived: no message with subject containing 'lunch' came to localhost port "
        "PORT within N seconds\nDoes the program send there?  sessions() shows who connected; "
        "if it is slow, give a longer timeout",
    "send_to(running(), 'dinner', *'123456'); running().wait(0.01, subject='Dinner')":
        "MessageNotReceived(near_misses=['dinner', '1', '2', '3', '4']): no message with subject "
        "containing 'Dinner' came to localhost port PORT within N seconds; 7 messages are there:\n"
        f"{HEADLINE} 'dinner'\n"
        "    subject: wanted containing 'Dinner', got 'dinner', which differs in case\n"
        f"{HEADLINE} '1'\n    subject: wanted containing 'Dinner', got '1'\n"
        f"{HEADLINE} '2'\n    subject: wanted containing 'Dinner', got '2'\n"
        f"{HEADLINE} '3'\n    subject: wanted containing 'Dinner', got '3'\n"
        f"{HEADLINE} '4'\n    subject: wanted containing 'Dinner', got '4'\n"
        f"- and 2 more, which came no nearer\n{YET_TO_COME}",
    "send_to(running(), 'lunch'); running().wait_many(2, 0.01, subject='lunch')":
        "MessageNotReceived: only 1 of 2 messages with subject containing 'lunch' came to "
        f"localhost port PORT within N seconds; 1 message is there\n{YET_TO_COME}",
    "s = running(); to = lambda *names: send_for(s, 'news', names); to('lee@example.com', "
    "'kim@example.com'); to('kim@EXAMPLE.com', 'leo@example.com'); send_for(s, 'News', "
    "['max@example.com']); s.wait_for_each([f'{name}@example.com' for name in ('kim', 'lee', "
    "'max')], 0.01, subject='news')":
        "MessageNotReceived(near_misses=['News'], missing=('max@example.com',)): only 2 of 3 "
        "recipients had a message with subject containing 'news' on localhost port PORT within "
        "N seconds:\n"
        "- 'max@example.com' had none\n"
        "- 'kim@example.com' had 2\n"
        "- 'leo@example.com', for whom none was to come, had 1\n"
        "- from <kim@example.com> to <max@example.com>, subject 'News'\n"
        "    subject: wanted containing 'news', got 'News', which differs in case\n"
        f"{YET_TO_COME}",
    "running().wait_for_each([f'{n}@example.com' for n in range(12)], 0.01, count=2)":
        f"MessageNotReceived(missing={tuple(f'{n}@example.com' for n in range(12))}): "
        "only 0 of 12 recipients had 2 messages on localhost port PORT within N seconds:\n"
        + "".join(f"- '{n}@example.com' had none\n" for n in range(10))
        + "- and so on, 2 more\nDoes the program send there?  sessions() shows who connected; "
        "if it is slow, give a longer timeout",
    "running().wait_for_each('kim@example.com')":
        "TypeError: recipients must be several addresses, such as ['kim@example.com', "
        "'lee@example.com'], not 'kim@example.com'",
    "running().wait_for_each([7])":
        "TypeError: recipients must be addresses, each a str, not 7",
    "running().wait_for_each([' '])":
        "ValueError: recipients must be addresses, and none may be empty",
    "running().wait_for_each([])":
        "ValueError: recipients must have an address at least, and there is none",
    "running().wait_for_each(['kim@example.com', 'kim@EXAMPLE.com'])":
        "ValueError: recipients must be different, and 'kim@example.com' and 'kim@EXAMPLE.com' "
        "are the same: for several messages to each, pass count",
    "running().wait_for_each(['kim@example.com'], count=0)":
        "ValueError: count must be a whole number from 1 on, not 0",
    "running().wait_for_each(['kim@example.com'], rcpt='kim@example.com')":
        "TypeError: wait_for_each() has its recipients already: leave rcpt out",
    "asyncio.run(asyncio.to_thread(running().wait, 0.01))":
        "MessageNotReceived: no message came to localhost port PORT within N seconds\nDoes "
        "the program send there?  sessions() shows who connected; if it is slow, "
        "give a longer timeout",
    "asyncio.run(on_the_loop(running().wait, 0.01))":
        "MessageNotReceived: no message came to localhost port PORT within N seconds\n"
        "Does the program send there?  sessions() shows who connected; "
        "if it is slow, give a longer timeout\n"
        "The event loop of this thread stood still meanwhile; if one of its tasks sends, "
        "await wait_async() instead",
    "asyncio.run(running().wait_async(0.01))":
        "MessageNotReceived: no message came to localhost port PORT within N seconds\n"
        "Does the program send there?  sessions() shows who connected; "
        "if it is slow, give a longer timeout",
    **{
        f"running().{name}_async({'2' if name == 'wait_many' else ''}).send(None)":
            f"RuntimeError: {name}_async() needs a running event loop of asyncio: in a coroutine "
            f"of trio, call {name}() on a thread, by trio.to_thread.run_sync(), and elsewhere "
            "as it is"
        for name in ("wait", "wait_many", "expect_none")
    },
    "stopped(own()).wait()":
        "MessageNotReceived: no message came to localhost port PORT within N seconds\n"
        "No server is running, so none can come: call start() first",
    "attached('leaf.png', None).attachment('cid:root')":
        "AttachmentNotFound: no attachment has the name or Content-ID 'cid:root'; there is "
        "'leaf.png', '(image/png)'",
    "attached('leaf.png').attachment('leaf.pgn')":
        "AttachmentNotFound: no attachment has the name or Content-ID 'leaf.pgn'; there is "
        "'leaf.png': did you mean leaf.png?",
    "attached().attachment('leaf.png')":
        "AttachmentNotFound: no attachment has the name or Content-ID 'leaf.png'; there is none",
    "MessageQueue().wait()":
        "MessageNotReceived: no message came within N seconds\n"
        "No server is running, so none can come: call start() first",
    "send_to(running(), 'invoice'); running().expect_none(subject='invoice')":
        "UnexpectedMessage(message='invoice'): a message with subject containing 'invoice' was "
        "there on localhost port PORT after N seconds, and none was to come for 0.2 seconds:\n"
        "from <kim@example.com> to <lee@example.com>, subject 'invoice'\n  | Hello.\n"
        "If it was to come before, take it, or call reset(), before expect_none()",
    "running().gate('RCPT').wait_parked(timeout=0.01, count=2)":
        "GateTimeout: 0 of 2 sessions came to the gate at RCPT on localhost port PORT within "
        "N seconds; sessions() shows what they did instead",
    "running().queue.get_nowait()":
        "Empty: no message is there, on localhost port PORT: "
        "wait() waits for one that is yet to come",
    "running().queue.get(timeout=0.01)":
        "Empty: no message came to localhost port PORT within N seconds: "
        "give a longer timeout, or see in sessions() what clients did",
    **{
        f"stopped(own()).queue.{call}":
            "Empty: no message is there, and no server runs on localhost port PORT: "
            "call start() first"
        for call in ("get_nowait()", "get()")
    },
    "MessageQueue().get_nowait()":
        "Empty: no message is there, and no server was started: call start() first",
    # Where to listen.
    "QueueController(port=running().port).start()":
        "OSError: [Errno EADDRINUSE] cannot listen on 'localhost' port PORT: REASON; "
        "somebody listens there: choose another port, or 0 for a free one",
    "WorkerServers('gw0').serve({'port': running().port})":
        f"Failed: OSError: [Errno {errno.EADDRINUSE}] pytest-xdist's worker gw0: cannot listen on "
        f"'localhost' port PORT: {os.strerror(errno.EADDRINUSE)}; somebody listens there: choose "
        "another port, or 0 for a free one",
    "QueueController('192.0.2.1').start()":
        "OSError: [Errno EADDRNOTAVAIL] cannot listen on '192.0.2.1' port 0: REASON; "
        "the host must be a name or an address of this machine",
    "QueueController('no-such-host.invalid').start()":
        "gaierror: [Errno ITS] cannot listen on 'no-such-host.invalid' port 0: REASON; "
        "the host must be a name or an address of this machine",
    "forget_localhost(); QueueController().start()":
        "gaierror: [Errno ITS] cannot listen on 'localhost' port 0: REASON; "
        "/etc/hosts should have this name: add it, or give '127.0.0.1' as the host",
    "QueueController('x' * 64 + '.example').start()":
        f"gaierror: [Errno EAI_NONAME] cannot listen on '{'x' * 64}.example' port 0: "
        "not a host name (REASON); the host must be a name or an address of this machine",
    "in_a_child(listen_without_privilege)":
        "PermissionError: [Errno EACCES] cannot listen on '127.0.0.1' port 1: REASON; "
        "ports below 1024 need privilege: choose another, or 0 for a free one",
    "QueueController(unix_socket=on_a_path().unix_socket).start()":
        "OSError: [Errno EADDRINUSE] cannot listen on PATH: REASON; somebody listens there: "
        "choose another path",
    "QueueController(unix_socket='/dev/null').start()":
        "FileExistsError: [Errno EEXIST] cannot listen on /dev/null: REASON; what is there is no "
        "socket, and is left alone: choose another path",
    "QueueController(unix_socket='/none/of this').start()":
        "FileNotFoundError: [Errno ENOENT] cannot listen on /none/of this: REASON; "
        "make the folder first",
    r"QueueController(unix_socket='/dev/null/\n').start()":
        r"NotADirectoryError: [Errno ENOTDIR] cannot listen on '/dev/null/\n': REASON; "
        "choose another path",
    "in_a_child(listen_where_only_root_may)":
        "PermissionError: [Errno EACCES] cannot listen on /smtp: REASON; "
        "its folder, and what is there, must be yours to write to",
    **{
        f"QueueController(unix_socket='/run/mail.sock').{name}":
            f"ValueError: the server on /run/mail.sock has no {name}: "
            "connect to the controller's unix_socket"
        for name in ("host", "port")
    },
    "QueueController(unix_socket='/run/mail.sock').sessions()":
        "NotRunning(unix_socket='/run/mail.sock'): sessions() needs a running server, and none "
        "runs on /run/mail.sock: call start() first",
    "on_a_path().start()":
        "AlreadyRunning: the server runs already, in process PID on PATH: call stop() first",
    "on_a_path().gate('RCPT').wait_parked(timeout=0.01)":
        "GateTimeout: 0 of 1 sessions came to the gate at RCPT on PATH within N seconds; "
        "sessions() shows what they did instead",
    "killed(on_a_path()).queue.get_nowait()":
        "ServerDied(exitcode=-9): the server process PID on PATH was killed by SIGKILL; "
        f"no message that it had accepted is lost.  {LOOK_FOR_THE_KILLER}",
    # TLS, and what is not installed.
    "have_no_folder(); QueueController(tls='starttls').start()":
        "FileNotFoundError: [Errno ENOENT] cannot keep the files of a certificate: REASON; "
        "set TMPDIR to a folder that can be written to, or have a certfile and keyfile",
    "QueueController(tls=TLS(certfile='no/cert.pem', keyfile='no/key.pem')).start()":
        f"FileNotFoundError: [Errno ENOENT] cannot serve TLS with no/cert.pem, no/key.pem: REASON"
        f"{IN_PEM_FORM}",
    "QueueController(tls=TLS(certfile='/dev/null')).start()":
        f"SSLError: cannot serve TLS with /dev/null: REASON{IN_PEM_FORM}",
    "QueueController(tls=TLS(certfile='no/cert.pem')).client_context()":
        "FileNotFoundError: [Errno ENOENT] cannot trust no/cert.pem: REASON; ca_file, or else "
        "certfile, must have the certificates to trust, in PEM form",
    "QueueController(tls=TLS(client_cert='optional', client_ca_file='no/ca.pem')).start()":
        "FileNotFoundError: [Errno ENOENT] cannot trust no/ca.pem: REASON; client_ca_file "
        "must have the certificates to trust, in PEM form",
    **{
        f"running().{call}":
            "ValueError: the server on localhost port PORT has no TLS: "
            "make it with tls='starttls' or 'implicit'"
        for call in (
            "client_context()", "ca_file", "client_cert_file", "client_context(with_cert=True)"
        )
    },
    **{
        f"QueueController(tls='starttls').{call}":
            "ValueError: the server asks for no certificate of a client: "
            "make it with tls=TLS(client_cert='optional') or 'required'"
        for call in ("client_cert_file", "client_context(with_cert=True)")
    },
    "QueueController(tls=TLS(client_cert='required', client_ca_file='ca.pem')).client_cert_file":
        "ValueError: no certificate that the server's own client_ca_file trusts can be made here: "
        "load one of yours, by client_context().load_cert_chain()",
    "TLS(certfile='mail.pem', ca_file='')":
        "ValueError: ca_file must be the path of a file, and is empty",
    "QueueController(tls=TLS(client_cert='required')).client_context(with_cert='')":
        "ValueError: the name in a certificate must be printable, and have from 1 to 64 octets "
        "in UTF-8, not ''",
    "QueueController(tls=TLS(client_cert='required')).client_context(with_cert=7)":
        "TypeError: with_cert must be True, False or the name in the certificate, not 7",
    "in_a_child(start_without, 'trustme', 'tls', 'implicit')":
        "ImportError(name='trustme'): tls without a certificate of your own needs trustme: "
        "pip install 'lazr-smtptest[tls]', or a certfile and keyfile, "
        "and with client_cert a client_ca_file",
    "in_a_child(make_without_scramp)":
        "ImportError(name='scramp'): SCRAM-SHA-256 needs scramp: pip install "
        "'lazr-smtptest[scram]', or leave it out of auth_mechanisms",
    "in_a_child(start_without, 'uvloop', 'uvloop', True)":
        "ImportError(name='uvloop'): uvloop=True needs uvloop: pip install 'lazr-smtptest[speed]'",
    # Options of servers.
    "running().restart(port=25, hostnam='x')":
        "TypeError: restart() has no option 'port', 'hostnam'; it has start_method, "
        f"start_timeout, stop_timeout, reset_timeout, uvloop, {SERVER_OPTIONS}: did you mean "
        "a new controller (this one stays where it is), hostname?",
    "running().restart('starttls')":
        "TypeError: restart() takes nothing without a name, and there is one more, of type str: "
        f"name it, as one of {SERVER_OPTIONS}",
    "running().restart(auth_required=True)":
        "ValueError: auth_required needs auth, such as auth={'kim': 'secret'}",
    "running().restart(stop_timeout=0)":
        "ValueError: stop_timeout must be a positive number of seconds, not 0",
    "Controller('localhost')":
        "TypeError: server must be a lazr_smtptest Server, such as Server('localhost', 2525), "
        "not 'localhost'",
    "Controller('localhost', 2525)":
        "TypeError: Controller() takes server without a name, and there is one more, of type "
        "int: name it, as one of start_method, start_timeout, stop_timeout, reset_timeout, uvloop",
    "Controller(Server(), tls='starttls')":
        "TypeError: Controller() has no option 'tls'; it has server, start_method, "
        "start_timeout, stop_timeout, reset_timeout, uvloop: did you mean Server(tls=...)?",
    "Controller(type('NotSetUp', (Server,), {'__init__': lambda _: None})())":
        "TypeError: NotSetUp.__init__ must call super().__init__(), and does not",
    "Controller(type('Awaiting', (Server,), {'handle_message': asyncio.sleep})())":
        "TypeError: Awaiting.handle_message must be made by def, not by async def: "
        "it is called on a thread, and nobody awaits it",
    "Controller(QueueServer('localhost', 0, 3))":
        "TypeError: the server's queue must have a put(message), as a MessageQueue() has; "
        "3 has none",
    "Controller(Server(), start_method='thread')":
        "ValueError: start_method must be one of "
        f"{', '.join(multiprocessing.get_all_start_methods())}, not 'thread'",
    "Controller(Server(), start_timeout=0)":
        "ValueError: start_timeout must be a positive number of seconds, not 0",
    "Controller(Server(), stop_timeout='1')":
        "TypeError: stop_timeout must be a number of seconds, not '1'",
    "QueueController(hostnam='x', id='y')":
        f"TypeError: QueueController() has no option 'hostnam', 'id'; it has {ALL_OPTIONS}: "
        "did you mean hostname?",
    "QueueController(prot=2525)":
        f"TypeError: QueueController() has no option 'prot'; it has {ALL_OPTIONS}: "
        "did you mean port?",
    "QueueController(ssl_context=None)":
        f"TypeError: QueueController() has no option 'ssl_context'; it has {ALL_OPTIONS}: "
        "did you mean tls=TLS(certfile=...)?",
    "QueueController(colour='blue')":
        f"TypeError: QueueController() has no option 'colour'; it has {ALL_OPTIONS}",
    "QueueController('localhost', 2525, {'kim': 'secret'})":
        "TypeError: QueueController() takes host and port without a name, and there is one more, "
        "of type dict: name it, as one of start_method, start_timeout, stop_timeout, "
        f"reset_timeout, uvloop, {SERVER_OPTIONS}",
    "QueueController('localhost', host='localhost')":
        "TypeError: QueueController() has host twice, without its name and with it",
    "QueueServer('localhost', 0)": "TypeError: QueueServer() needs queue, and has none",
    "QueueController.start()":
        "TypeError: start() is a method: call it of an object, and not of its class",
    "MessageQueue.wait(timeout=1)":
        "TypeError: wait() is a method: call it of an object, and not of its class",
    "Server(start_timeout=3)":
        f"TypeError: Server() has no option 'start_timeout'; it has host, port, {SERVER_OPTIONS}: "
        "did you mean Controller(start_timeout=...)?",
    "QueueController(hostname='127.0.0.1')":
        "ValueError: hostname must be a name, for the greeting, or an address in brackets, "
        "not '127.0.0.1': did you mean host='127.0.0.1'?",
    "QueueController().hostname":
        "AttributeError: 'QueueController' object has no attribute 'hostname': did you mean host?",
    "QueueController().colour":
        "AttributeError: 'QueueController' object has no attribute 'colour'",
    "QueueController().address('kim')":
        "AttributeError: 'QueueController' object has no attribute 'address': did you mean host, "
        "or address() of a Lease, which smtptest_shared gives each test?",
    "QueueController().claim('*@example.com')":
        "AttributeError: 'QueueController' object has no attribute 'claim': did you mean claim() "
        "of a Lease, which smtptest_shared gives each test?",
    "QueueController().unclaimed":
        "AttributeError: 'QueueController' object has no attribute 'unclaimed': did you mean "
        "unclaimed of a Lease, which smtptest_shared gives each test?",
    "Server(tls=('cert.pem', 'key.pem'))":
        "TypeError: tls must be a TLS, 'starttls' or 'implicit', not ('cert.pem', 'key.pem'): "
        "did you mean TLS(certfile='cert.pem', keyfile='key.pem')?",
    "MessageQueue().mesages":
        "AttributeError: 'MessageQueue' object has no attribute 'mesages': "
        "did you mean messages?",
    "Server(7)": "TypeError: host must be a str, not 7: did you mean port=7?",
    "Server(b'localhost')": "TypeError: host must be a str, not b'localhost'",
    r"Server('a\nb')": r"ValueError: host must be one line of printable text, not 'a\nb'",
    **{
        f"Server({value!r})":
            f"ValueError: host {HOST_ALONE}, not {value!r}"
            f"{meant and f': did you mean {meant}?'}"
        for value, meant in {
            "127.0.0.1:2525": "host='127.0.0.1' and port=2525",
            "localhost:2525": "host='localhost' and port=2525",
            "localhost:smtp": "",
            "localhost:": "host='localhost'",
            "localhost:70000": "host='localhost'",
            "[::1]": "host='::1'",
            "[::1]:2525": "host='::1' and port=2525",
            "smtp://localhost:2525": "host='localhost' and port=2525",
            "smtp://kim:secret@localhost:2525/": "host='localhost' and port=2525",
            "http://127.0.0.1": "host='127.0.0.1'",
            "/run/mail.sock": "unix_socket='/run/mail.sock'",
            "unix:/run/mail.sock": "unix_socket='/run/mail.sock'",
        }.items()
    },
    "configure('smtptest_host = localhost:2525')":
        f"UsageError: smtptest_host {HOST_ALONE}, not 'localhost:2525': did you mean "
        "smtptest_host = localhost and smtptest_port = 2525?",
    "configure('smtptest_host = /run/mail.sock')":
        f"UsageError: smtptest_host {HOST_ALONE}, not '/run/mail.sock'",
    "Server(port='25')": "TypeError: port must be an int, not '25'",
    "Server(port=70000)": "ValueError: port must be from 0 to 65535, not 70000",
    **{
        f"Server(unix_socket={value})":
            "TypeError: unix_socket must be the path of a file, as a str or a path-like object, "
            f"not {value}"
        for value in ("7", "b'/run/mail.sock'", "['/run/mail.sock']")
    },
    "Server(unix_socket='')":
        "ValueError: unix_socket must not be empty, nor have a NUL, as an abstract socket has: ''",
    r"Server(unix_socket='\0mail')":
        "ValueError: unix_socket must not be empty, nor have a NUL, as an abstract socket has: "
        r"'\x00mail'",
    r"Server(unix_socket='/run/\ud800')":
        "ValueError: unix_socket cannot be the name of a file here: 'utf-8' codec can't encode "
        r"character '\ud800' in position 5: surrogates not allowed",
    "Server(unix_socket='/' + 'x' * 120)":
        f"ValueError: unix_socket must have at most {LONGEST_PATH} octets, not 121: "
        f"'/{'x' * 120}'.  Choose a folder with a shorter name, such as one that you make in "
        "/tmp",
    "Server('127.0.0.1', unix_socket='/run/mail.sock')":
        "ValueError: unix_socket takes the place of host and port, and these are '127.0.0.1' and 0"
        ": leave them out",
    "QueueController(port=2525, unix_socket='/run/mail.sock')":
        "ValueError: unix_socket takes the place of host and port, and these are 'localhost' and "
        "2525: leave them out",
    "Server(lmtp='no')": "TypeError: lmtp must be True or False, not 'no'",
    "running().restart(lmtp=1)": "TypeError: lmtp must be True or False, not 1",
    "Server(auth={}, auth_required='no')":
        "TypeError: auth_required must be True or False, not 'no'",
    "QueueController(uvloop='no')": "TypeError: uvloop must be True or False, not 'no'",
    "Server(tls='starttls', auth_require_tls=None)":
        "TypeError: auth_require_tls must be True or False, not None",
    "Server(proxy_protocol='off')": "TypeError: proxy_protocol must be True or False, not 'off'",
    "running().restart(reset_on_rset='no')":
        "TypeError: reset_on_rset must be True or False, not 'no'",
    "TLS(required='false')": "TypeError: required must be True or False, not 'false'",
    "Server(port=25, lmtp=True)":
        "ValueError: lmtp must not be spoken on port 25, which is SMTP's (RFC 2033, 5)",
    "Server(idle_timeout=0)":
        "ValueError: idle_timeout must be a positive number of seconds, not 0",
    "Server(max_connections=0)":
        "ValueError: max_connections must be a whole number from 1 on, not 0",
    "running().hang_up('Bye')":
        "ValueError: reply must begin with a reply code, such as '451 4.7.1 Later', not 'Bye'",
    "running().hang_up(421)":
        "TypeError: reply must be a str, such as '451 4.7.1 Later', not 421",
    "QueueController(port=9025).hang_up()":
        "NotRunning(host='localhost', port=9025): hang_up() needs a running server, "
        "and none runs on localhost port 9025: call start() first",
    "Server(recipient_limit=0)":
        "ValueError: recipient_limit must be a whole number from 1 on, not 0",
    "Server(tls=7)": "TypeError: tls must be a TLS, 'starttls' or 'implicit', not 7",
    "Server(tls='ssl')":
        "ValueError: tls must be 'starttls' or 'implicit', not 'ssl': did you mean implicit?",
    "TLS('startls')":
        "ValueError: mode must be 'starttls' or 'implicit', not 'startls': "
        "did you mean starttls?",
    **{
        call:
            f"{name} 'starttls' or 'implicit', not CONTEXT: "
            "did you mean TLS(certfile=..., keyfile=...)?"
        for call, name in (
            ("Server(tls=ssl_context())", "TypeError: tls must be a TLS,"),
            ("TLS(ssl_context())", "ValueError: mode must be"),
        )
    },
    **{
        f"TLS(certfile={value})":
            "TypeError: certfile must be the path of a file, as a str or a path-like object, "
            f"not {value}"
        for value in ("5", "b'cert.pem'")
    },
    "TLS('starttls', 'cert.pem')":
        "TypeError: TLS() takes mode without a name, and there is one more, of type str: name "
        "it, as one of required, variant, certfile, keyfile, password, ca_file, client_cert, "
        "client_ca_file, minimum_version, maximum_version",
    "TLS(variant='revoked')":
        "ValueError: variant must be 'valid', 'expired', 'wrong-host' or 'untrusted', "
        "not 'revoked'",
    "TLS(variant='self-signed')":
        "ValueError: variant must be 'valid', 'expired', 'wrong-host' or 'untrusted', "
        "not 'self-signed': did you mean untrusted?",
    "TLS(keyfile='key.pem')": "ValueError: keyfile needs a certfile: give that, too, or neither",
    "TLS(password='x')": "ValueError: password needs a certfile: give that, too, or neither",
    "TLS(certfile='cert.pem', password=7)":
        "TypeError: password must be a str or bytes, and is of type int",
    "TLS(client_cert=True)":
        "ValueError: client_cert must be 'optional' or 'required', not True",
    "TLS(client_ca_file='ca.pem')":
        "ValueError: client_ca_file needs client_cert, 'optional' or 'required'",
    **{
        f"TLS(minimum_version={value!r})":
            f"ValueError: minimum_version must be 'TLSv1.2' or 'TLSv1.3', not {value!r}; older "
            "versions are not offered (RFC 8996)"
        for value in ("TLSv1.1", "TLSv1", "SSLv3")
    },
    "TLS(maximum_version='1.3')":
        "ValueError: maximum_version must be 'TLSv1.2' or 'TLSv1.3', not '1.3': "
        "did you mean TLSv1.3?",
    "TLS(minimum_version='TLSv1.3', maximum_version='TLSv1.2')":
        "ValueError: minimum_version 'TLSv1.3' is above maximum_version 'TLSv1.2'",
    "TLS(variant='expired', certfile='cert.pem')":
        "ValueError: variant 'expired' is made here: give no certfile with it",
    "Server(auth=['kim'])":
        "TypeError: auth must map names to passwords, such as {'kim': 'secret'}, or be True or a "
        "function of mechanism, user and secret, not a list",
    "Server(auth=lambda user, secret: True)":
        "TypeError: auth must be a function of mechanism, user and secret: "
        "too many positional arguments",
    "Server(auth=asyncio.start_server)":
        "TypeError: auth must be made by def, not by async def: it is called on a thread, and "
        "nobody awaits it",
    "Server(auth_mechanisms=['PLAIN'])":
        "ValueError: auth_mechanisms needs auth, such as auth={'kim': 'secret'}",
    "Server(auth=True, auth_mechanisms='PLAIN')":
        "TypeError: auth_mechanisms must be several names, such as ('PLAIN',)",
    "Server(auth=True, auth_mechanisms=[7])":
        "TypeError: auth_mechanisms must be names, such as ('PLAIN',), not (7,)",
    "Server(auth=True, auth_mechanisms=['PLAIN', 'NTLM'])":
        "ValueError: auth_mechanisms may have CRAM-MD5, EXTERNAL, LOGIN, OAUTHBEARER, PLAIN, "
        "SCRAM-SHA-256, XOAUTH2, not NTLM",
    "Server(auth=True, auth_mechanisms=[])":
        "ValueError: auth_mechanisms may have CRAM-MD5, EXTERNAL, LOGIN, OAUTHBEARER, PLAIN, "
        "SCRAM-SHA-256, XOAUTH2, not nothing at all",
    "Server(auth=True, auth_mechanisms=['EXTERNAL'], tls='starttls')":
        "ValueError: EXTERNAL of auth_mechanisms needs a certificate of the client: "
        "tls=TLS(client_cert='optional') or 'required'",
    "Server(auth=True, auth_mechanisms=['PLAIN', 'plain'])":
        "ValueError: auth_mechanisms has PLAIN more than once",
    "Server(auth=True, auth_mechanisms=['SCRAM-SHA-256'])":
        "ValueError: SCRAM-SHA-256 of auth_mechanisms needs the passwords, "
        "such as auth={'kim': 'secret'}",
    "Server(auth={'kim': chr(7)}, auth_mechanisms=['SCRAM-SHA-256'])":
        "ValueError: SCRAM-SHA-256 cannot have the password of 'kim': "
        "control characters forbidden",
    "Server(auth={'kim': 7})": "TypeError: auth must map names to passwords, both of them str",
    "Server(auth={'': 'x'})":
        "ValueError: a name in auth must not be empty, and neither may have a NUL",
    "Server(auth_required=True)":
        "ValueError: auth_required needs auth, such as auth={'kim': 'secret'}",
    "Server(auth={'kim': 'x'}, auth_require_tls=True)":
        "ValueError: auth_require_tls needs tls, such as tls='starttls'",
    "Server(hide='DSN')": "TypeError: hide must be several names, such as ('DSN',)",
    "Server(hide='')": "TypeError: hide must be several names, such as ('8BITMIME',)",
    "Server(hide=['VRFY'])":
        "ValueError: hide may have 8BITMIME, AUTH, DSN, ENHANCEDSTATUSCODES, HELP, PIPELINING, "
        "SIZE, SMTPUTF8, STARTTLS, not VRFY",
    "Server(offer='CHUNKING')": "TypeError: offer must be several names, such as ('CHUNKING',)",
    "Server(offer=['DSN', 'CHUNKING'])":
        "ValueError: offer may have CHUNKING, BINARYMIME, not DSN; DSN is offered already, "
        "unless hide=('DSN',)",
    "Server(offer=['starttls', 'auth'])":
        "ValueError: offer may have CHUNKING, BINARYMIME, not AUTH, STARTTLS; AUTH is offered "
        "with auth={'kim': 'secret'}; STARTTLS is offered with tls='starttls'",
    "Server(offer=['CHUNKIN', 'DSN'])":
        "ValueError: offer may have CHUNKING, BINARYMIME, not CHUNKIN, DSN; DSN is offered "
        "already, unless hide=('DSN',): did you mean CHUNKING?",
    "Server(offer=['CHUNK'])":
        "ValueError: offer may have CHUNKING, BINARYMIME, not CHUNK: did you mean CHUNKING?",
    "Server(hide=['CHUNKING'], offer=['CHUNKING'])":
        "ValueError: hide may have 8BITMIME, AUTH, DSN, ENHANCEDSTATUSCODES, HELP, PIPELINING, "
        "SIZE, SMTPUTF8, STARTTLS, not CHUNKING; CHUNKING is offered only where offer has it",
    "Server(offer=['BINARYMIME'])":
        "ValueError: BINARYMIME of offer needs CHUNKING: offer=('CHUNKING', 'BINARYMIME')",
    "Server(hide=['8BITMIME'], offer=['CHUNKING', 'BINARYMIME'])":
        "ValueError: BINARYMIME of offer needs the parameter BODY: hide no 8BITMIME",
    "Server(hostname='')":
        "ValueError: hostname must be a name, for the greeting, or an address in brackets, "
        "not '': did you mean host=''?",
    "lazr_smtptest.Contoller":
        "AttributeError: module 'lazr_smtptest' has no attribute 'Contoller': "
        "did you mean Controller?",
    # Options of faults and gates.
    "running().fault('RCTP', '450 No')":
        f"ValueError: stage must be one of {', '.join(STAGES)}, not 'RCTP': did you mean RCPT?",
    "running().gate('TURN')": f"ValueError: stage must be one of {', '.join(STAGES)}, not 'TURN'",
    "running().fault('450 No', 'RCPT')":
        f"ValueError: stage must be one of {', '.join(STAGES)}, not '450 No': "
        "did you mean reply='450 No'?",
    "running().fault('LHLO', '450 No')":
        f"ValueError: stage must be one of {', '.join(STAGES)}, not 'LHLO': "
        "only a server with lmtp=True has it",
    "QueueController(lmtp=True).gate('HELO')":
        "ValueError: stage must be one of CONNECT, LHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, EOM, "
        "RSET, NOOP, VRFY, EXPN, HELP, QUIT, not 'HELO': an LMTP server has LHLO in its place",
    "running().fault('BDAT', '450 No')":
        f"ValueError: stage must be one of {', '.join(STAGES)}, not 'BDAT': "
        "only a server with offer=('CHUNKING',) has it",
    "running().fault('MAIL', '450 No', when=7)":
        "TypeError: when must be a str, such as '*@example.com', not 7",
    "running().fault('MAIL', '450 No', times=0)":
        "ValueError: times must be a whole number from 1 on, not 0",
    "running().fault('MAIL', delay=-1)":
        "ValueError: delay must be a finite number of seconds from 0 on, not -1",
    "running().fault('MAIL', delay='1')": "TypeError: delay must be a number of seconds, not '1'",
    "running().fault('MAIL', drop='later')":
        "ValueError: drop must be True, False or one of 'before', 'instead', 'after', 'content', "
        "not 'later': did you mean after?",
    "running().fault('MAIL', '450 No', count=2)":
        "TypeError: fault() has no option 'count'; it has stage, reply, raw, when, times, delay, "
        "trickle, drop, after: did you mean times?",
    "running().hang_up('421 4.3.2 Bye', 5)":
        "TypeError: hang_up() takes reply without a name, and there is one more, of type int: "
        "leave it out",
    "running().fault('MAIL', '450 No', drop='before')":
        "ValueError: drop='before' means that there is no reply: give one or the other",
    "running().fault('MAIL')":
        "ValueError: a fault needs a reply, raw, a delay, a trickle, or drop",
    "running().fault('MAIL', '450 No', raw=b'450')":
        "ValueError: raw is sent in place of a reply: give one or the other",
    "running().fault('MAIL', raw='450 No')":
        r"TypeError: raw must be bytes, such as b'250-no end\r\n', not '450 No'",
    "running().fault('MAIL', trickle='1')":
        "TypeError: trickle must be a number of seconds, not '1'",
    "running().fault('MAIL', trickle=1, drop='before')":
        "ValueError: trickle needs something to say there: give reply or raw, or no trickle",
    "running().fault('DATA', '552 No', after=0)":
        "ValueError: after must be a whole number from 1 on, not 0",
    "running().fault('EOM', '552 No', after=9)":
        "ValueError: after is for DATA, not for EOM",
    "running().fault('EOM', drop='content')":
        "ValueError: drop='content' is for DATA, not for EOM",
    "running().fault('DATA', drop='instead', after=9)":
        "ValueError: after goes with drop='content' or none, not with drop='instead'",
    "running().fault('MAIL', 450)":
        "TypeError: reply must be a str, such as '451 4.7.1 Later', not 450",
    "running().fault('MAIL', 'No')":
        "ValueError: reply must begin with a reply code, such as '451 4.7.1 Later', not 'No'",
    r"running().fault('MAIL', '450 N\0')":
        "ValueError: reply must be printable text, with a line feed between lines, "
        r"not '450 N\x00'",
    r"running().fault('MAIL', '450 No\n451 No')":
        "ValueError: reply must have one code in all its lines, not 450 and 451: "
        r"'450 No\n451 No'",
    "running().fault('DATA', '354 Go')":
        "ValueError: a fault at DATA that says 354 has the client send content that nobody "
        "awaits: give a delay alone, drop, or a fault at EOM",
    "running().gate('RCPT').wait_parked(timeout=-1)":
        "ValueError: timeout must be a finite number of seconds from 0 on, not -1",
    "running().gate('RCPT').wait_parked(2)":
        "TypeError: wait_parked() takes nothing without a name, and there is one more, of type "
        "int: name it, as one of count, timeout",
    "running().gate('RCPT').wait_parked(count=0)":
        "ValueError: count must be a whole number from 1 on, not 0",
    "running().gate('RCPT').release(0)":
        "ValueError: count must be a whole number from 1 on, not 0",
    # Arguments of calls that have none, and of functions.
    **{
        f"running().{name}(1)":
            f"TypeError: {name}() takes nothing without a name, and there is one more, of type "
            "int: leave it out"
        for name in ("start", "stop", "reset", "sessions")
    },
    **{
        f"running().{name}(timeout=1)":
            f"TypeError: {name}() has no option 'timeout'; it has none: did you mean "
            f"{name}_timeout of the controller?"
        for name in ("start", "stop", "reset")
    },
    "connect('/leases')": "TypeError: connect() needs key, and has none",
    "connect('/leases', 'key', 5)":
        "TypeError: connect() takes address and key without a name, and there is one more, of "
        "type int: name it, as one of name, timeout",
    "connect(host='localhost', port=2525)":
        "TypeError: connect() has no option 'host', 'port'; it has address, key, name, timeout: "
        "did you mean address, address?",
    "SharedController(prot=1)":
        "TypeError: SharedController() has no option 'prot'; it has host, port, template, faults, "
        f"unread_limit, lease_host, {ALL_OPTIONS.removeprefix('host, port, ')}: "
        "did you mean port?",
    "running().queue.get('5')": "TypeError: block must be True or False, not '5'",
    "running().queue.get(5)":
        "TypeError: block must be True or False, not 5: did you mean timeout=5?",
    "attached().header(7)": "TypeError: name must be a str, such as 'Subject', not 7",
    "attached().raw_headers(None)": "TypeError: name must be a str, such as 'Subject', not None",
    "attached('leaf.png').attachment(0)":
        "TypeError: name must be a str, such as 'invoice.pdf', not 0",
    "running().wait(True)": "TypeError: timeout must be a number of seconds, not True",
    **{
        f"QueueController(stop_timeout={value})":
            f"TypeError: stop_timeout must be a number of seconds, not {value}"
        for value in ("True", "False")
    },
    "Server(tls=False)":
        "TypeError: tls must be a TLS, 'starttls' or 'implicit', not False: leave it out for none",
    "Server(auth=False)":
        "TypeError: auth must map names to passwords, such as {'kim': 'secret'}, or be True or a "
        "function of mechanism, user and secret, not a bool: leave it out for none",
    "TLS(client_cert=False)":
        "ValueError: client_cert must be 'optional' or 'required', not False: leave it out for "
        "none",
    "Server(hide='SIZE, DSN')":
        "TypeError: hide must be several names, such as ('SIZE', 'DSN')",
    # What to look for in messages.
    "running().wait(rcpt=['kim@example.com'])":
        "TypeError: rcpt must be a str, a compiled pattern or a callable, not "
        "['kim@example.com']: did you mean wait_for_each(['kim@example.com'])?",
    "running().wait(header='x')":
        "TypeError: a message has no 'header' to look for; there is rcpt, sender, to, cc, "
        "reply_to, subject, text, where: did you mean where?",
    "running().wait(timeout='1')": "TypeError: timeout must be a number of seconds, not '1'",
    "running().wait(timeout=-1)":
        "ValueError: timeout must be a finite number of seconds from 0 on, not -1",
    "running().wait(where='x')":
        "TypeError: where must be a callable that takes a message, not 'x'",
    "running().wait(recipient='x')":
        "TypeError: a message has no 'recipient' to look for; there is rcpt, sender, to, cc, "
        "reply_to, subject, text, where: did you mean rcpt?",
    "running().expect_none(timeout=1)":
        "TypeError: a message has no 'timeout' to look for; there is rcpt, sender, to, cc, "
        "reply_to, subject, text, where: did you mean quiet?",
    "running().wait('kim@example.com')":
        "TypeError: timeout must be a number of seconds, not 'kim@example.com': "
        "did you mean rcpt='kim@example.com'?",
    "running().wait_many('kim@example.com')":
        "ValueError: count must be a whole number from 1 on, not 'kim@example.com': "
        "did you mean rcpt='kim@example.com'?",
    "running().wait_many(subject='lunch')": "TypeError: wait_many() needs count, and has none",
    "running().messages[0]":
        "IndexError: no message is there, on localhost port PORT: "
        "wait() waits for one that is yet to come",
    "send_to(running(), 'lunch'); running().messages[1]":
        "IndexError: there is no more than 1 message, on localhost port PORT: "
        "wait_many() waits for more",
    "running().sessions()[0]":
        "IndexError: no client has connected to localhost port PORT since the last reset()",
    "running().wait(subject=re.compile(b'x'))":
        "TypeError: subject must be a pattern of str, not of bytes: re.compile(b'x')",
    "running().wait(to=7)": "TypeError: to must be a str, a compiled pattern or a callable, not 7",
    "running().wait_many(0)": "ValueError: count must be a whole number from 1 on, not 0",
    # Servers that are shared.
    "SharedController(template=7)":
        "TypeError: template must be a str, such as '{name}@{lease}.example.test', not 7",
    "SharedController(template='{name}@example.com')":
        f"ValueError: {THE_TEMPLATE}, not '{{name}}@example.com'",
    "SharedController(faults='mine')": "ValueError: faults must be 'own' or 'all', not 'mine'",
    "SharedController(unread_limit=0)":
        "ValueError: unread_limit must be a whole number from 1 on, not 0",
    "SharedController(lease_host=25)": "TypeError: lease_host must be a str, not 25",
    "SharedController(lease_host='[::1]:2525')":
        f"ValueError: lease_host {HOST_ALONE}, not '[::1]:2525': did you mean lease_host='::1'?",
    "SharedController(lease_host='/run/leases')":
        f"ValueError: lease_host {HOST_ALONE}, not '/run/leases'",
    "SharedController(reset_on_rset=True)":
        "ValueError: reset_on_rset is not for a shared server: it would reset all leases",
    "connect('leases', 'key')": f"ValueError: {THE_ADDRESS}, not 'leases'",
    "connect([], 'key')": f"ValueError: {THE_ADDRESS}, not []",
    "connect(7, 'key')": f"TypeError: {THE_ADDRESS}, not 7",
    "connect('/leases', b'key')": "TypeError: key must be a str, as a SharedController has it",
    "connect('/leases', 'key', name=7)":
        "TypeError: name must be a str, such as the test's, not 7",
    "connect('/leases', 'key', timeout=0)":
        "ValueError: timeout must be a positive number of seconds, not 0",
    "connect(['/none/leases', 'localhost:1'], 'key')":
        f"{NO_LEASE}: /none/leases: No such file or directory; "
        f"localhost:1: Connection refused{TAKE_KEY}",
    "knock()":
        f"{NO_LEASE}: PLACE: it did not answer in time{TAKE_KEY}",
    "knock(None)":
        f"{NO_LEASE}: PLACE: it closed the connection{TAKE_KEY}",
    "knock(b'\\0\\0\\0\\x05220 x')":
        f"{NO_LEASE}: PLACE: the key is wrong, or something else is there "
        f"(it speaks another protocol){TAKE_KEY}",
    "shared().address('k im')":
        "ValueError: name must be what may come before the at sign of an address without quotes, "
        "such as 'kim', not 'k im'",
    "shared().address('kim@example.com')":
        "ValueError: name must be what may come before the at sign of an address without quotes, "
        "such as 'kim', not 'kim@example.com': claim() takes whole addresses",
    "shared().address(7)": "TypeError: name must be a str, such as 'kim', not 7",
    "shared().claim()":
        "TypeError: claim() needs an address, such as 'kim@example.com' or '*@example.com'",
    "shared().claim(7)": f"TypeError: {NO_CLAIM}, not 7",
    "shared().claim('kim')": f"ValueError: {NO_CLAIM}, or '*' for all that is left, not 'kim'",
    "a = shared(); a.claim('*@example.com'); another(a.owner).claim('Kim@example.com')":
        "LeaseError: 'Kim@example.com' is claimed already, by '*@example.com', by test_it, gw0: "
        f"{OWN_ADDRESS}",
    "a = shared(); another(a.owner).claim(a.address('kim'))":
        f"LeaseError: 'kim@LABEL.example.test' is claimed already, by test_it, gw0: {OWN_ADDRESS}",
    "shared().fault('EHLO', '421 Later')":
        "LeaseError: this fault could affect other leases' mail: at EHLO the server cannot know "
        f"whose mail a session will bring{NOT_YOUR_OWN}",
    "shared().gate('MAIL')":
        "LeaseError: this gate could affect other leases' mail: at MAIL it needs a when= that "
        f"is an address of this lease{NOT_YOUR_OWN}",
    "shared().fault('MAIL', '550 No', when='kim@example.com')":
        "LeaseError: this fault could affect other leases' mail: when='kim@example.com' is no "
        f"address of this lease: claim() the sender first{NOT_YOUR_OWN}",
    "a = shared(); a._finish(); a.fault('RCPT', '450 Later')":
        "LeaseError: this fault is for a lease that is over: ask the lease of the test that runs",
    "shared().unclaimed[0]": "IndexError: no mail came that no lease was for",
    "shared().restart()":
        f"LeaseError: {SHARED} is not this lease's to start or stop: whoever shares it does "
        "that.  close() gives the lease back; a QueueController has a server of its own",
    "unread(shared(unread_limit=1000)).wait()":
        f"LeaseError: {SHARED} refused mail with 452, since more than 1000 octets waited for this "
        "lease to be read: read it sooner, call reset(), or share the server with a larger "
        "unread_limit",
    "killed(shared()).wait()":
        f"ServerDied: {SHARED} has ended, and this lease with it; mail that was on its way is "
        "lost.  Whoever started it knows how it ended: by pytest, see the end of the run",
    "a = shared(); stop_meanwhile(a, a.owner)":
        f"NotRunning: {SHARED} was stopped by whoever shares it, while this call waited",
    "a = shared(); a.close(); a.reset()":
        f"NotRunning: this lease of {SHARED} is closed: connect() anew",
    "a = shared(); a.close(); a.wait()":
        "MessageNotReceived: no message came to localhost port PORT within N seconds\n"
        "This lease is closed, so none can come: connect() anew",
    "in_a_child(shared().reset)":
        f"NotRunning: this lease of {SHARED} belongs to process PARENT; this is process CHILD, a "
        "child of that.  connect() here for another",
    # What a server says that the command line, or pytest, has started: there is no call to make.
    "on_command_line(); Controller(Server(), start_method='spawn', start_timeout=0.001).start()":
        f"StartTimeout(elapsed=0.001): {SERVER} was started, and did not report that it serves "
        "within 0.001 seconds.  Look for what keeps it",
    "on_command_line(); "
    "Controller(Awkward('os.kill(os.getpid(), signal.SIGKILL)'), start_method='fork').start()":
        f"StartError(exitcode=-9): {SERVER} was killed by SIGKILL before it served.  Its standard "
        "error may say why",
    "on_command_line(); busy(LONG_NOOP).fault('RCPT', '450 No')":
        f"ServerStuck(elapsed=0.2): {SERVER} did not answer within 0.2 seconds.  Look in its "
        "stack for what keeps it:\nSTACK in handle_NOOP",
    "on_command_line(); paused().fault('RCPT', '450 No')":
        f"ServerStuck(elapsed=0.2): {SERVER} did not answer {NO_STACK}",
    "on_command_line(); stopped(paused()).queue.get_nowait()":
        f"ServerDied(exitcode=-9, lost=1): {SERVER} did not stop when asked, and was ended by "
        "SIGKILL; 1 message that it had accepted is lost.  The log shows what kept it",
    "on_command_line(); killed(own()).queue.get_nowait()":
        f"ServerDied(exitcode=-9): {SERVER} was killed by SIGKILL; no message that it had "
        "accepted is lost.  Look for what killed it (the system itself does so when memory runs "
        "out), and run it again",
    "on_command_line(); killed_by(own(Obedient), 'os._exit(9)').queue.get_nowait()":
        f"ServerDied(exitcode=9): {SERVER} ended with exit code 9; no message that it had "
        "accepted is lost.  Look for what exits, and run it again",
    "in_shared_run(); Controller(Server(), start_method='spawn', start_timeout=0.001).start()":
        f"StartTimeout(elapsed=0.001): {SERVER} was started, and did not report that it serves "
        "within 0.001 seconds.  Look for what keeps it, or return a longer start_timeout from "
        f"the hook {HOOK}(config) in conftest.py on a busy machine",
    "in_shared_run(); killed(own()).queue.get_nowait()":
        f"ServerDied(exitcode=-9): {SERVER} was killed by SIGKILL; no message that it had "
        "accepted is lost.  Look for what killed it (the system itself does so when memory runs "
        "out), and run the tests again",
    "in_shared_run(); stopped(paused()).queue.get_nowait()":
        f"ServerDied(exitcode=-9, lost=1): {SERVER} did not stop when asked, and was ended by "
        "SIGKILL; 1 message that it had accepted is lost.  The log shows what kept it; if it was "
        f"only slow, return a longer stop_timeout from the hook {HOOK}(config) in conftest.py",
    "in_shared_run(); connect('/none/leases', 'key')":
        f"{NO_LEASE}: /none/leases: No such file or directory",
    "in_shared_run(); a = shared(); a.close(); a.reset()":
        f"NotRunning: this lease of {SHARED} is closed: leave close() to the fixture",
    "in_shared_run(); shared().stop()":
        f"LeaseError: {SHARED} is not this lease's to start or stop: whoever shares it does "
        "that.  smtptest_factory() starts a server for this test",
    "in_shared_run(); stopped_under(shared()).wait(0.01)":
        "MessageNotReceived: no message came to localhost port PORT within N seconds\n"
        "No server is running, so none can come: the end of the run says how it ended",
    # The pytest plugin.
    "run_test('smtptest', above='@pytest.mark.smtptest(tls=True)', "
    "ini='smtptest_shared = localhost:0')":
        f"Failed: {THERE_BEFORE.format('tls')}",
    "run_test('smtptest', above='@pytest.mark.smtptest', ini='smtptest_shared = localhost:0')":
        f"Failed: {THERE_BEFORE.format('a mark')}",
    "configure('smtptest_shared = 2525')":
        "UsageError: smtptest_shared must be HOST:PORT, such as localhost:2525, with port 0 for a "
        "free one, not 2525",
    "run_test('smtptest', above='@pytest.mark.smtptest(\"one.example\", 2525)')":
        "Failed: @pytest.mark.smtptest takes keyword arguments only, such as port=2525, "
        "not 'one.example', 2525",
    "run_test('smtptest', above='@pytest.mark.smtptest(hostnam=\"one.example\")')":
        f"Failed: smtptest has no option 'hostnam'; it has {ALL_OPTIONS}: did you mean hostname?",
    "run_test('smtptest', above='@pytest.mark.smtptest(tls=__import__(\"lazr_smtptest\")"
    ".TLS(certfile=\"no/cert.pem\"))')":
        "Failed: FileNotFoundError: [Errno 2] cannot serve TLS with no/cert.pem: "
        f"{os.strerror(errno.ENOENT)}{IN_PEM_FORM}",
    "run_test('smtptest', above='@pytest.mark.smtptest(port=70000)')":
        "Failed: port must be from 0 to 65535, not 70000",
    "run_test('smtptest_factory', 'smtptest_factory(hostnam=\"one.example\")')":
        f"TypeError: smtptest has no option 'hostnam'; it has {ALL_OPTIONS}: "
        "did you mean hostname?",
    "run_test('smtptest_factory', 'smtptest_factory()', "
    "above='@pytest.fixture\\ndef smtptest_options(): return [\"localhost\"]')":
        "Failed: smtptest_options must be a dict of options, not ['localhost']",
    "run_test('smtptest, smtptest_factory', "
    "'send_to(smtptest, \"left\"); send_to(smtptest_factory(), *range(21))')":
        "Failed: the test left mail unread, on localhost port PORT: take it, with wait() say, "
        f"or call reset()\n{HEADLINE} 'left'\n"
        "the test left mail unread, on localhost port PORT: take it, with wait() say, "
        f"or call reset()\n{''.join(f'{HEADLINE} {str(n)!r}' + chr(10) for n in range(20))}"
        "- and 1 more",
    "run_test('smtptest', 'send_to(smtptest, 1); smtptest.wait()')":
        "Failed: the mail of this test has errors.  Correct the program; or allow them, as by "
        '@pytest.mark.smtptest_allow("from-missing"), or by smtptest_allow in the ini file:\n'
        "- from-missing: There is no From field; add one.\n"
        f"    in {HEADLINE[2:]} '1'",
    "run_test('smtptest', above='@pytest.mark.smtptest_allow(\"no-from\")')":
        "Failed: @pytest.mark.smtptest_allow has no code 'no-from'; it has "
        + ", ".join(sorted([*CODES, *SESSION_CODES])),
    "run_test('smtptest', above='@pytest.mark.smtptest_allow')":
        "Failed: @pytest.mark.smtptest_allow needs a code, such as "
        '@pytest.mark.smtptest_allow("from-missing")',
    "configure('smtptest_check = off\\nsmtptest_allow = form-missing')":
        "UsageError: smtptest_allow has no code 'form-missing'; it has "
        + ", ".join(sorted([*CODES, *SESSION_CODES])) + ": did you mean from-missing?",
    "run_test('smtpd', 'smtpd.config.use_ssl = \"perhaps\"', "
    "above='pytest_plugins = [\"lazr_smtptest.compat\"]')":
        "ValueError: a truth value must be one of y, yes, t, true, on, 1, n, no, f, false, off, "
        "0, not 'perhaps'",
    "configure('', '--smtptest-report=')":
        "UsageError: --smtptest-report must name a folder",
    "begin_report('index.html')":
        "UsageError: --smtptest-report: the folder for pages has an index.html that "
        "lazr-smtptest has not written: name another",
    "configure('smtptest_check = on')":
        "UsageError: smtptest_check must be off, report or error, not on: did you mean report?",
    "configure('smtptest_port = smtp')":
        "UsageError: smtptest_port must be a number, 0 for a free one: "
        "invalid literal for int() with base 10: 'smtp'",
    "configure('smtptest_port = 70000')":
        "UsageError: smtptest_port must be from 0, for a free one, to 65535, not 70000",
    "configure('smtptest_strict = perhaps')":
        "UsageError: smtptest_strict must be true or false: invalid truth value 'perhaps'",
    "configure('smtptest_shared = h:0\\nsmtptest_shared_faults = each')":
        "UsageError: smtptest_shared_faults must be own or all, not each",
    "configure('smtptest_shared = h:0\\nsmtptest_port = 25')":
        "UsageError: smtptest_port = 25 is for servers of the workers' own, and with "
        "smtptest_shared = h:0 there are none: leave out one of them (-o smtptest_port=0)",
    "share('localhost:0', '[1]')":
        f"UsageError: {HOOK} in conftest.py:1 must return a dict of options, not [1]",
    "share('localhost:0', '1 / 0')":
        f"UsageError: {HOOK} in conftest.py:2 raised ZeroDivisionError: division by zero",
    "share('localhost:0', '{\"tls\": \"ssl\"}')":
        f"UsageError: {HOOK} in conftest.py:1: tls must be 'starttls' or 'implicit', not 'ssl': "
        "did you mean implicit?",
    "share('localhost:0', '{\"host\": \"h\", \"port\": 1}')":
        f"UsageError: {HOOK} in conftest.py:1 must not return host and port: "
        "smtptest_shared says where to listen",
    "share('0.0.0.0:0', 'None', '--tx=ssh=build-1')":
        "UsageError: smtptest_shared = 0.0.0.0:0 does not say by which address workers on other "
        "machines reach this one: give that instead of 0.0.0.0, or return it as lease_host from "
        "the hook pytest_smtptest_shared_options(config) in conftest.py",
}
# fmt: on


@pytest.mark.parametrize("situation", SITUATIONS, ids=list(SITUATIONS))
def test_error_text(situation: str, request: pytest.FixtureRequest) -> None:
    with contextlib.ExitStack() as ending:
        stage = Stage(request, ending)
        with pytest.raises((Exception, pytest.fail.Exception)) as caught:
            stage.play(situation)
        error = caught.value
        where = whereabouts(error) if isinstance(error, StartError) else stage.where
        assert stage.reply + told(error, where) == SITUATIONS[situation]
    if type(error) in (TypeError, ValueError) and not situation.startswith("run_test"):
        assert ours_in(caught.traceback.filter(caught)) == []
    if isinstance(error, OSError) and isinstance(error.__cause__, OSError):
        assert error.errno == error.__cause__.errno
    if isinstance(error, SMTPTestError):
        assert where.items() <= vars(error).items()
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
        assert vars(again).keys() == vars(error).keys()


def ours_in(trace: list[Any]) -> list[Any]:
    """Find our frames among those that pytest shows."""
    package = Path(lazr_smtptest.__file__).parent
    return [entry for entry in trace if Path(entry.frame.code.path).is_relative_to(package)]


def whereabouts(error: StartError) -> dict[str, Any]:
    """Say where a server was that did not start, and see to it that it is gone."""
    assert error.port
    assert error.pid is None or gone(error.pid)
    found = {"host": "localhost", "port": error.port, "pid": error.pid}
    return {name: value for name, value in found.items() if value}


def told(error: BaseException, where: dict[str, Any]) -> str:
    """Give what is told of an error; where its server is goes without saying."""
    text, facts = str(error), {}
    for varying, word in variables(error, where):
        if varying and varying in text:
            text = re.sub(rf"{re.escape(varying)}(?!\d)", word, text)
    if isinstance(error, SMTPTestError):
        facts = {n: v for n, v in vars(error).items() if v not in (None, "", 0, (), where.get(n))}
    elif isinstance(error, ImportError):
        facts = {"name": error.name}
    for name, word in {"stack": "STACK", "traceback": "TRACEBACK", "elapsed": "N seconds"}.items():
        if word in text:
            facts.pop(name, None)
    if "message" in facts:
        facts["message"] = facts["message"]["subject"]
    if "near_misses" in facts:
        facts["near_misses"] = [miss.message["subject"] for miss in facts["near_misses"]]
    shown = ", ".join(f"{name}={value!r}" for name, value in facts.items())
    return f"{type(error).__name__}{shown and f'({shown})'}: {text}"


def variables(error: BaseException, where: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Find what differs from run to run, and the word for it."""
    text, facts, cause = str(error), vars(error), error.__cause__
    # What may have numbers in it comes first.
    stack = facts.get("stack") or text.partition("It was here:\n")[2]
    ours = re.search(r"line \d+( in (handle|auth)_[A-Za-z_]+)$", stack, re.MULTILINE)
    yield stack, f"STACK{ours[1] if ours else ''}"
    raised = "".join(re.findall(" raised (.*), for the server", text))
    trace = re.match(rf"(?s){TRACEBACK}.* line (.*)", facts.get("traceback", ""))
    if trace and raised in squeezed(trace[1]):
        yield trace[0], "TRACEBACK"
    yield "".join(re.findall(rf"(?s)why:\n({TRACEBACK}.*)\n\w+: \d$", text)), "TRACEBACK"
    yield f"{facts.get('elapsed') or 0:.2f} seconds", "N seconds"
    if isinstance(error, queue.Empty):
        yield "".join(re.findall(r"within (\S+ seconds)", text)), "N seconds"
    yield f"process {where.get('pid')}", "process PID"
    yield f"process {os.getpid()}", "process PARENT"
    yield f"port {where.get('port')}", "port PORT"
    yield where.get("unix_socket", ""), "PATH"
    if isinstance(error, OSError):
        number = "ITS" if isinstance(cause, socket.gaierror) else ERRNOS.get(error.errno or 0)
        yield f"[Errno {error.errno}]", f"[Errno {number}]"
        yield os.strerror(error.errno or 0), "REASON"
    if isinstance(error, OSError | StartError) and cause is not None:
        yield f"{type(cause).__name__}: {cause}", "REASON"
        yield getattr(cause, "strerror", ""), "REASON"
        yield str(cause), "REASON"
    yield "".join(re.findall(LABEL, text)), "LABEL"
    yield limits_set(), "LIMITS"
    yield "".join(re.findall(r"<ssl.SSLContext object at \w+>", text)), "CONTEXT"


def squeezed(text: str) -> str:
    return " ".join(text.split())


# That the table has each.

#: Raised within the server process, for itself.
_INTERNAL = {"an answer that is too long"}

#: A reply that a client gets of it.
_REPLY = re.compile(r"[45]\d\d ")


def pieces(nodes: list[ast.expr]) -> list[str]:
    """Give what is certain to be in the texts that some expressions make."""
    constants = [
        node for root in nodes for node in ast.walk(root) if isinstance(node, ast.Constant)
    ]
    texts = [squeezed(node.value) for node in constants if isinstance(node.value, str)]
    return [text for text in texts if " " in text]


def raised_in(source: str) -> Iterator[tuple[int, str]]:
    """Find what the texts of errors are made of.

    :return: For each piece of text its line.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = list(ast.walk(function))
        made = [node.value for node in nodes if isinstance(node, ast.Assign | ast.AugAssign)]
        for node in nodes:
            if not isinstance(node, ast.Call) or not is_error(node.func):
                continue
            found = pieces(node.args[:2])
            if not found and isinstance(node.args and node.args[0], ast.Name):
                found = pieces(made)  # in some lines above
            if found and not _REPLY.match(found[0]) and found[0] not in _INTERNAL:
                yield from ((node.lineno, piece) for piece in found)


def is_error(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else ast.unparse(called)
    ours = getattr(lazr_smtptest.errors, name, None)
    return (
        (isinstance(ours, type) and issubclass(ours, Exception))
        or name in {"Empty", "fail", "type(error)"}
        or (name.endswith("Error") and name != "AssertionError")
    )


def test_no_raise_goes_unheard() -> None:
    """Each error's text is in the table, whatever module it comes from."""
    heard = "\0".join(map(squeezed, SITUATIONS.values()))
    package = Path(lazr_smtptest.__file__).parent
    unheard = [
        f"{path.relative_to(package)}:{line}: {piece}"
        for path in sorted(package.rglob("*.py"))
        if path.name not in ("arguments.py", "errors.py")
        for line, piece in raised_in(path.read_text(encoding="utf-8"))
        if piece not in heard
    ]
    assert unheard == []


@pytest.mark.parametrize(
    "code",
    [
        "raise ServerDied('of \\n a new cause')",
        "raise ValueError(f'{it} is of a new cause') from None",
        "return errors.StartError(f'{name} is of a new cause', host=host)",
        "text = f'{name} is'\n    text += ' of a new cause'\n    raise ServerStuck(text)",
    ],
)
def test_a_new_error_is_found(code: str) -> None:
    found = [piece for _, piece in raised_in(f"def f():\n    {code}\n")]
    assert [piece for piece in found if "of a new cause" in piece]
