"""Starting a server process: sockets, process, readiness.  Test process.

This is the one module that knows both processes.  It is imported when the
first server is started, and with it all that runs in a server process: that
one imports nothing once it is forked.  What only some calls need is imported, too,
since they may come when a test has replaced what an import finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import traceback
import warnings
from _signal import pthread_sigmask  # signal's deals in enums
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, popen_fork
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess, current_process
from os import close, lstat, unlink
from typing import TYPE_CHECKING, Any, NamedTuple

import lazr_smtptest._parent.feeder
import lazr_smtptest._parent.preloaded
import lazr_smtptest.faults  # noqa: F401
from lazr_smtptest._child.inherited import FirstStep
from lazr_smtptest._child.loop import EventLoop, ServerLoop
from lazr_smtptest._child.main import main
from lazr_smtptest._greenlets import MonkeyPatches
from lazr_smtptest._limits import MEMORY, check_descriptors, limit_behind, limits_set
from lazr_smtptest._names import SPELLING, or_longer
from lazr_smtptest._parent.forks import FORKING, STARTING, disown_in_children, fork_with
from lazr_smtptest._parent.link import ServerLink
from lazr_smtptest._parent.process import ServerProcess, describe_end
from lazr_smtptest._parent.signals import RAISING, undisturbed
from lazr_smtptest._wire.channel import BACKLOG, ChildEnds, ParentEnds, open_channel
from lazr_smtptest._wire.endpoint import Endpoint, SocketFile
from lazr_smtptest._wire.startup import PassedSocket, PickledServer
from lazr_smtptest.errors import ServerDied, ServerStuck, StartError, StartTimeout
from lazr_smtptest.server import Server

if TYPE_CHECKING:
    from lazr_smtptest._child.lease_server import LeaseServer
    from lazr_smtptest._wire.sharing import Sharing

#: Seconds for a server process to end that cannot serve, or that was killed.
_END_TIMEOUT = 5.0

#: How often to look for another port when the free one that the first address
#: got is taken on the second.
_ATTEMPTS = 20

#: An address of the wrong family or none of ours: a name like localhost may
#: stand for ::1 on a machine without IPv6.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_ANY_IPV4, _ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104

#: What `socket.getsockname` returns.
_Name = tuple[Any, ...]

_SEE_STDERR = "Its standard error may say why"
_SEE_MAIN_MODULE = (
    ".  Unless it is forked, it imports the main module again, which must be a file, and guard "
    "what it runs by __name__ == '__main__'"
)


@contextlib.contextmanager
def standard_descriptors() -> Iterator[None]:
    """Keep 0, 1 and 2 taken, if only by the null device; see `check_descriptors`.

    Otherwise a pipe of ours would get such a number, and whatever the server
    process prints would be written to it.
    """
    placeholders = undisturbed(check_descriptors)
    try:
        yield
    finally:
        for fd in placeholders:
            close(fd)


def _start(start: Callable[[], None]) -> None:
    """Start a process without a warning, and without an exception in between.

    One at a time: the warning filters are the whole process's.

    Python 3.12 and later warn when a process with threads forks, since a lock
    may stay locked in the child for ever; `_child.main` needs none such.  A Ctrl-C
    would be raised in the child, before that can ignore it; blocked signals are
    inherited, and it unblocks them when it is ready.
    Here, what a signal handler raised would be lost, or have multiprocessing
    lose the child.
    """
    with STARTING.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # On any thread, which is the child's main thread.
        before = pthread_sigmask(signal.SIG_BLOCK, ())
        try:  # first, since to block may raise, for a signal that is there already
            pthread_sigmask(signal.SIG_BLOCK, RAISING)
            start()
        finally:
            pthread_sigmask(signal.SIG_SETMASK, before)


def _start_a_child(process: BaseProcess, first: FirstStep | None) -> None:
    """Start a process from any, and be it daemonic, as a worker of a Pool is.

    Django's parallel test runner has such workers.  multiprocessing forbids
    them children, because whoever ends them ends no children of theirs; a
    server process ends with its parent, however that is ended.
    """
    config: dict[str, Any] = getattr(current_process(), "_config", {})
    daemonic = config.pop("daemon", None)
    try:
        if first is None:
            process.start()
        else:
            fork_with(first, process.start)
    finally:
        if daemonic is not None:
            config["daemon"] = daemonic


# Sockets.  They are bound here and handed over, so that a taken port is an error
# of start(), a free port is known without a race, and a client that is early
# waits in the backlog.


@dataclass(frozen=True)
class Listening:
    """Sockets that listen, on their way to the server process.

    Leaving it closes them, here; and where it has come to nothing, their file goes, too.
    """

    sockets: list[socket.socket]
    endpoint: Endpoint
    file: SocketFile | None = None

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        self.close()
        if error is not None and self.file is not None:
            self.file.remove()

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def listen_for(
    server: Server, addresses: Addresses | None, last_port: int | None, same_port: bool
) -> Listening:
    """Listen where a server is to: see `listen` and `listen_unix`.

    A free port is the one that it had last, unless somebody else has that now; that is an
    error where it is to be the ``same_port``.
    """
    path = server.unix_socket
    if path is not None:
        sock = listen_unix(path)
        return Listening([sock], Endpoint(unix_socket=path), SocketFile.at(path))
    assert addresses is not None
    sockets: list[socket.socket] = []
    if last_port is not None and (same_port or not server.port):
        with contextlib.nullcontext() if same_port else contextlib.suppress(OSError):
            sockets, bound = listen(addresses, last_port)
    if not sockets:
        sockets, bound = listen(addresses, server.port)
    return Listening(sockets, Endpoint(host_for_clients(server.host, bound), bound[0][1]))


def listen_unix(path: str) -> socket.socket:
    """Bind and listen on a UNIX socket, in place of one that nobody listens on any more.

    An OSError names the path, and keeps the system's ``errno``.
    """
    try:
        _remove_stale(path)
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.bind(path)
            sock.listen(BACKLOG)
            stack.pop_all()
        return sock
    except OSError as error:
        where = Endpoint(unix_socket=path)
        advice = {
            errno.EADDRINUSE: "somebody listens there: choose another path",
            errno.EEXIST: "what is there is no socket, and is left alone: choose another path",
            errno.ENOENT: "make the folder first",
            errno.EACCES: "its folder, and what is there, must be yours to write to",
        }.get(error.errno or 0, "choose another path")
        raise type(error)(
            error.errno, f"cannot listen on {where}: {error.strerror or error}; {advice}"
        ) from error


def _remove_stale(path: str) -> None:
    """Remove the file of a socket that nobody listens on; anything else is an OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(lstat(path).st_mode):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        found = SocketFile.at(path)
        if _is_listening(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        if found == SocketFile.at(path):  # not of somebody who was quicker
            unlink(path)


def _is_listening(path: str) -> bool:
    """Whether a connection would be accepted, now or later."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its backlog is full
            return True
        except OSError as error:
            # It is no stream socket, which is a service, too.
            if error.errno != errno.EPROTOTYPE:
                raise
            return True
    return True


class Addresses(NamedTuple):
    """What a host's name stands for."""

    host: str
    found: list[tuple[int, tuple[object, ...]]]


def resolve(host: str, port: int) -> Addresses:
    """Look up what to listen on; see `listen`.  Blocks as long as the system's resolver."""
    try:
        # By position, as asyncio and `socket.create_connection` call it: what a test has put in
        # its place may name its parameters in another way.
        found = socket.getaddrinfo(host or None, port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    except UnicodeError as error:
        unknown = socket.gaierror(socket.EAI_NONAME, f"not a host name ({error})")
        raise _named(unknown, host, port) from error
    except OSError as error:
        if limit_behind(error):
            raise
        raise _named(error, host, port) from error
    if not found:
        raise _named(socket.gaierror(socket.EAI_NONAME, "it has no address"), host, port)
    return Addresses(host, list(dict.fromkeys((one[0], one[4]) for one in found)))


def listen(addresses: Addresses, port: int) -> tuple[list[socket.socket], list[_Name]]:
    """Bind and listen on each address of a host, all on one port; return their names, too.

    An empty host means all interfaces, and port 0 one that is free.  An OSError
    names both, and keeps the system's ``errno``.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _bind_all(addresses.found, port)
        except OSError as error:
            elsewhere = port == 0 and error.errno == errno.EADDRINUSE
            if not elsewhere or attempt == _ATTEMPTS - 1:
                raise _named(error, addresses.host, port) from error
    raise AssertionError("unreachable")


def _bind_all(
    addresses: list[tuple[int, tuple[object, ...]]], port: int
) -> tuple[list[socket.socket], list[_Name]]:
    sockets: list[socket.socket] = []
    names: list[_Name] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sock = _bind(family, address, port)
            except OSError as error:
                # Or a name, as from httpretty's resolver, without an address of that family.
                if error.errno not in _NOT_HERE and not isinstance(error, socket.gaierror):
                    raise
                absent = error
                continue
            sockets.append(sock)
            names.append(sock.getsockname())
            port = names[0][1]
        if not sockets:
            assert absent is not None
            raise absent
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets, names


def _bind(family: int, address: tuple[object, ...], port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is named:
    # without, each session would take 40 milliseconds more.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # Lets a port be used again whose last connections still linger;
            # not (unlike SO_REUSEPORT) one that somebody listens on.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Its own addresses only: 0.0.0.0 has a socket of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address[0], port, *address[2:]))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def host_for_clients(host: str, names: list[_Name]) -> str:
    """Return what clients on this machine connect to, by what the sockets are bound to.

    That is the host, unless it stands for all interfaces, as do ``""``, ``"0.0.0.0"``
    and whatever else the system takes for these.
    """
    bound = {name[0] for name in names}
    if not bound & {_ANY_IPV4, _ANY_IPV6}:
        return host
    if not host and _is_known("localhost"):
        return "localhost"
    return "127.0.0.1" if _ANY_IPV4 in bound else "::1"


def _is_known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM))
    except OSError:
        return False


def _named(error: OSError, host: str, port: int) -> OSError:
    reason = error.strerror or str(error)
    advice = {
        errno.EADDRINUSE: "; somebody listens there: choose another port, or 0 for a free one",
        errno.EADDRNOTAVAIL: "; the host must be a name or an address of this machine",
        errno.EACCES: "; ports below 1024 need privilege: choose another, or 0 for a free one",
    }.get(error.errno or 0, "")
    if isinstance(error, socket.gaierror):
        advice = "; the host must be a name or an address of this machine"
        if host == "localhost":
            advice = "; /etc/hosts should have this name: add it, or give '127.0.0.1' as the host"
    return type(error)(error.errno, f"cannot listen on {host!r} port {port}: {reason}{advice}")


# The process.


def launch(
    context: BaseContext,
    server: Server,
    listening: Listening,
    acknowledged: bool,
    uvloop: bool | None,
    sharing: Sharing | None,
    keep: Callable[[ServerLink], object],
) -> None:
    """Start a server process; it is not waited for.  See `main` for the arguments.

    :param keep: Called with the link as soon as there is a process, which from then on is the
        caller's to end: a signal handler may raise before this returns.
    """
    sockets, endpoint = listening.sockets, listening.endpoint
    files = [one for one in (listening.file, sharing and sharing.file) if one]
    method = context.get_start_method()
    log_level = logging.getLogger().level
    patches = MonkeyPatches()
    # uvloop waits in C code, where nothing that switches greenlets gets a turn.
    new_loop = event_loop_factory(False if patches.are_threads_replaced() else uvloop)
    ends, child_ends, link = undisturbed(partial(_open_link, context, acknowledged))
    pickled = PickledServer(server, endpoint)
    passed = [PassedSocket(sock) for sock in sockets]
    lease_server = None if sharing is None else _lease_server(sharing)
    make_loop = partial(ServerLoop, child_ends, acknowledged, lease_server)
    first: FirstStep | None = None
    process: BaseProcess | None = None
    try:
        if method == "fork":
            given = [*passed, *(sharing.sockets if sharing else ())]
            first = FirstStep(child_ends, given, pickled, patches)
            if not patches.are_there_any():  # locks or queues, say, that are of no use there
                first.prepare(make_loop, server)
        args = child_ends, passed, files, pickled, make_loop, first, log_level, new_loop
        process = context.Process(  # type: ignore[attr-defined]
            target=main, args=args, name="lazr-smtptest", daemon=True
        )

        def start() -> None:
            _start_a_child(process, first)
            drop = first.drop if first else None
            link.begin(ServerProcess(process, ends.stacks, endpoint, files, drop))
            keep(link)

        with _starting(endpoint):
            if method == "forkserver":
                # Not with signals blocked: all its children would inherit that.
                forkserver.ensure_running()
            _start(start)
    except BaseException:
        if not link.has_begun:
            undisturbed(partial(_undo, process, first, link, ends))
        raise
    finally:
        undisturbed(partial(_close_all, child_ends, listening, *([first] if first else [])))


def _close_all(*things: ChildEnds | Listening | FirstStep) -> None:
    for thing in things:
        thing.close()


def _undo(
    process: BaseProcess | None, first: FirstStep | None, link: ServerLink, ends: ParentEnds
) -> None:
    try:
        if process is not None and process.pid is not None:
            process.kill()
            process.join(_END_TIMEOUT)
            with contextlib.suppress(ValueError):  # it is stuck in the kernel
                process.close()
    finally:
        if first is not None:
            first.drop()
        link.close_wake()
        ends.close()


def _open_link(
    context: BaseContext, acknowledged: bool
) -> tuple[ParentEnds, ChildEnds, ServerLink]:
    with FORKING:  # a child of another thread's would keep the lifeline open
        ends, child_ends = open_channel(context)
        disown_in_children(ends)
    try:
        return ends, child_ends, ServerLink(ends, keeps_forgets=acknowledged)
    except BaseException:
        ends.close()
        child_ends.close()
        raise


def _lease_server(sharing: Sharing) -> Callable[[], LeaseServer]:
    from lazr_smtptest._child.lease_server import LeaseServer

    return partial(LeaseServer, sharing)


@contextlib.contextmanager
def _starting(endpoint: Endpoint) -> Iterator[None]:
    """Start a process: what comes of it when that fails is a StartError."""
    try:
        yield
    except StartError as error:
        # Python 3.14's pickle adds what it was about to pickle, which is of our making.
        vars(error).pop("__notes__", None)
        raise
    except (EOFError, OSError) as error:
        _close_pipes_left_by(error)
        if limit_behind(error):
            raise
        reason = str(error)
        if isinstance(error, EOFError | ConnectionError):
            reason = (
                "multiprocessing's fork server has ended.  Its standard error may say why.  "
                f"These limits are set: {limits_set() or 'none'}"
            )
        raise StartError(
            f"no process can be started for the server on {endpoint}: {reason}", **endpoint.facts
        ) from error


def _close_pipes_left_by(error: BaseException) -> None:
    """Close the two pipes that multiprocessing leaves open where fork(2) fails."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is popen_fork.Popen._launch.__code__:  # type: ignore[attr-defined]
            ends = dict(frame.f_locals)
            for pair in (("parent_r", "child_w"), ("child_r", "parent_w")):
                if ends.keys() >= set(pair):
                    _close_pipe(*map(ends.__getitem__, pair))


def _close_pipe(*ends: int) -> None:
    # If a later Python closes them itself, they may be anything by now, but hardly one pipe.
    with contextlib.suppress(OSError):
        if len({os.fstat(fd).st_ino for fd in ends}) == 1:
            for fd in ends:
                os.close(fd)


def event_loop_factory(uvloop: bool | None) -> Callable[[], asyncio.AbstractEventLoop]:
    # Here, since the server process must not import.
    if uvloop is False:
        return EventLoop
    try:
        from uvloop import new_event_loop
    except ImportError:
        if uvloop:
            raise ImportError(
                "uvloop=True needs uvloop: pip install 'lazr-smtptest[speed]'", name="uvloop"
            ) from None
        return EventLoop
    return new_event_loop


def await_ready(link: ServerLink, timeout: float) -> None:
    """Wait until a server process serves; raise StartError if it does not."""
    problem = _await_report(link, timeout)
    if problem is not None:
        link.await_end(_END_TIMEOUT)
        process = link.process
        raise StartError(f"{process.name} {problem}", exitcode=process.exitcode, **process.where)


def _describe_silence() -> str:
    limits = limits_set(*MEMORY)
    main_module = _SEE_MAIN_MODULE if SPELLING.get().is_program else ""
    memory = f".  It may have run out of memory: {limits}" if limits else ""
    return f"{_SEE_STDERR}{main_module}{memory}"


def _await_report(link: ServerLink, timeout: float) -> str | None:
    """Return why a server process cannot serve, or None when it does."""
    process = link.process
    try:
        problem: str | None = link.await_ready(timeout)
    except ServerStuck as error:
        raise StartTimeout(
            f"{process.name} was started, and did not report that it serves within "
            f"{timeout:g} seconds.  "
            f"Look for what keeps it{or_longer('start_timeout', ' on a busy machine')}"
            + (f".  It was here:\n{error.stack}" if error.stack else ""),
            elapsed=timeout,
            **process.where,
        ) from None
    except ServerDied as error:
        raise StartError(
            f"{process.name} {describe_end(error.exitcode)} before it served.  "
            + (f"Its last words say why:\n{error.stack}" if error.stack else _describe_silence()),
            exitcode=error.exitcode,
            **process.where,
        ) from None
    return problem
