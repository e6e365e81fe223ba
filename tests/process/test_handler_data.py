"""What a handler puts where only the test would look is named when the server starts."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import io
import logging
import multiprocessing
import os
import queue
import threading
import time
import warnings
from pathlib import Path

import global_data
import pytest
from helpers import send_to

from lazr_smtptest import (
    Controller,
    HandlerDataWarning,
    MessageQueue,
    QueueController,
    QueueServer,
    Server,
    StartError,
)
from lazr_smtptest._parent.handler_data import warn_of_lost_data


def warned(server: Server) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_lost_data(server)
    assert {each.category for each in caught} <= {HandlerDataWarning}
    return [str(each.message) for each in caught]


class MyServer(Server):
    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)


# Each kind of object, as an attribute.


class Puts(MyServer):
    def handle_message(self, message):
        self.inbox.put(message)


class PutsNow(MyServer):
    def handle_message(self, message):
        if message["subject"]:
            self.inbox.put_nowait(message["subject"])


class Sets(MyServer):
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        self.event.set()
        return "250 OK"


class Releases(MyServer):
    def handle_message(self, message):
        self.arrivals.release()


class Resolves(MyServer):
    def handle_message(self, message):
        self.first.set_result(message)


class Appends(MyServer):
    def handle_message(self, message):
        self.received.append(message)


class Adds(MyServer):
    def handle_message(self, message):
        self.received.add(message["subject"])


class Stores(MyServer):
    def handle_message(self, message):
        self.received[message["subject"]] = message


class Counts(MyServer):
    def handle_message(self, message):
        self.received[message["subject"]] += 1


class Groups(MyServer):
    def handle_message(self, message):
        self.received[message["subject"]].append(message)


class Concatenates(MyServer):
    def handle_message(self, message):
        self.received += [message]


class Writes(MyServer):
    def handle_message(self, message):
        self.log.write(message["subject"])


@pytest.mark.parametrize(
    ("kind", "name", "value", "verb", "type_name"),
    [
        (Puts, "inbox", queue.Queue(), "calls put() of", "queue.Queue"),
        (Puts, "inbox", queue.SimpleQueue(), "calls put() of", "queue.SimpleQueue"),
        (Puts, "inbox", queue.LifoQueue(), "calls put() of", "queue.LifoQueue"),
        (PutsNow, "inbox", queue.PriorityQueue(), "calls put_nowait() of", "queue.PriorityQueue"),
        (PutsNow, "inbox", asyncio.Queue(), "calls put_nowait() of", "asyncio.queues.Queue"),
        (Sets, "event", threading.Event(), "calls set() of", "threading.Event"),
        (Sets, "event", asyncio.Event(), "calls set() of", "asyncio.locks.Event"),
        (Releases, "arrivals", threading.Semaphore(0), "release() of", "threading.Semaphore"),
        (
            Resolves,
            "first",
            concurrent.futures.Future(),
            "set_result() of",
            "concurrent.futures._base.Future",
        ),
        (Appends, "received", [], "calls append() of", "list"),
        (Appends, "received", collections.deque(), "append() of", "collections.deque"),
        (Appends, "received", collections.UserList(), "append() of", "collections.UserList"),
        (Adds, "received", set(), "calls add() of", "set"),
        (Stores, "received", {}, "stores into", "dict"),
        (Counts, "received", collections.Counter(), "stores into", "collections.Counter"),
        (Groups, "received", collections.defaultdict(list), "stores into", "defaultdict"),
        (Concatenates, "received", [], "stores into", "list"),
        (Writes, "log", io.StringIO(), "calls write() of", "io.StringIO"),
    ],
)
def test_each_kind_of_object(kind, name, value, verb, type_name):
    (text,) = warned(kind(**{name: value}))
    hook = "handle_RCPT" if kind is Sets else "handle_message"
    assert text.startswith(f"{kind.__name__}.{hook} ")
    assert f"{verb} the " in text
    assert f"{type_name} in the attribute {name!r} of {kind.__name__}, and only" in text
    assert "QueueServer" in text
    assert "multiprocessing.Queue" in text
    assert "sessions()" in text


# Each place where such an object can be.

INBOX: list[object] = []


def remember(message):
    INBOX.append(message)


class Collector:
    def __init__(self):
        self.items = []

    def add(self, item):
        self.items.append(item)

    def __call__(self, item):
        self.items.append(item)


class Slotted:
    __slots__ = ("inbox",)

    def __init__(self):
        self.inbox = queue.Queue()


def logged(method):
    @functools.wraps(method)
    def wrapper(self, *args):
        return method(self, *args)

    return wrapper


class ByGlobal(Server):
    def handle_message(self, message):
        INBOX.append(message)


class ByFunction(Server):
    def handle_message(self, message):
        remember(message)


class ByModule(Server):
    def handle_message(self, message):
        global_data.received.append(message)


class ByFunctionOfModule(Server):
    def handle_message(self, message):
        global_data.keep(message)


class OnClass(Server):
    received: list[object] = []

    def handle_message(self, message):
        self.received.append(message)


class ByClass(Server):
    received: list[object] = []

    def handle_message(self, message):
        ByClass.received.append(message)


class ByHelper(MyServer):
    def handle_message(self, message):
        self._keep(message)

    def _keep(self, message):
        for _ in range(1):
            self.received.append(message)


class ByProperty(MyServer):
    @property
    def box(self):
        self.received.append("looked")
        return None

    def handle_message(self, message):
        _ = self.box


class ByStaticMethod(Server):
    def handle_message(self, message):
        self.keep(message)

    @staticmethod
    def keep(message):
        INBOX.append(message)


def keep_in(box, message, *, loud=False):
    if loud:
        print(message)
    box.append(message)


def keep_pair(message, boxes, box):
    keep_in(box, message)


class AsArgument(MyServer):
    def handle_message(self, message):
        keep_in(self.received, message["subject"])


class AsLastArgument(MyServer):
    def handle_message(self, message):
        keep_pair(str(message), [1, len(message)], self.received)


class ToMethod(MyServer):
    def handle_message(self, message):
        self._keep(1, self.inbox)

    def _keep(self, item, box):
        box.put(item)


class ByClassMethod(Server):
    received: list[object] = []

    def handle_message(self, message):
        self.keep(message)

    @classmethod
    def keep(cls, message):
        cls.received.append(message)


class ByDefault(Server):
    def handle_message(self, message, inbox=INBOX):
        inbox.append(message)


class ByAlias(MyServer):
    def handle_message(self, message):
        received = self.received
        received.append(message)


class ByCallback(MyServer):
    def handle_message(self, message):
        self.on_mail(message)


class ByObject(MyServer):
    def handle_message(self, message):
        self.collector.add(message)


class ByInnerFunction(MyServer):
    def handle_message(self, message):
        def keep():
            self.received.append(message)

        keep()


class ByComprehension(MyServer):
    def handle_message(self, message):
        [self.received.append(line) for line in message.text.splitlines()]


class BySuper(Appends):
    def handle_message(self, message):
        super().handle_message(message)


class ByBaseClass(Appends):
    def handle_message(self, message):
        Appends.handle_message(self, message)


class Inherited(Appends):
    pass


class Decorated(MyServer):
    @logged
    def handle_message(self, message):
        self.received.append(message)


class BySlot(MyServer):
    def handle_message(self, message):
        self.slotted.inbox.put(message)


class InReset(MyServer):
    def reset(self):
        self.event.set()


class Drained(MyServer):
    """As servers of 2.x did."""

    def handle_message(self, message):
        self.inbox.put(message)

    def reset(self):
        super().reset()
        while True:
            try:
                self.inbox.get_nowait()
            except queue.Empty:
                break


class Cleared(MyServer):
    def handle_message(self, message):
        self.received.clear()
        self.received.append(message)

    def reset(self):
        while len(self.received):
            del self.received[0]


class BesideItsQueue(QueueServer):
    """Fills its queue, and something else."""

    received: list[object] = []

    def handle_message(self, message):
        super().handle_message(message)
        self.received.append(message["subject"])


class ByThread(MyServer):
    def handle_message(self, message):
        threading.Timer(0, self.inbox.put, [message]).start()


def program(depth):
    """Give a function that calls another, and so on."""
    if not depth:
        return lambda: None
    following = program(depth - 1)
    return eval("lambda: following()", {"following": following, "__name__": __name__})


class RunsAProgram(MyServer):
    """Which is too large to be read for every start."""

    def handle_message(self, message):
        self.received.append(message)
        self.program()


COUNT = 0
LAST = None


class CountsGlobally(Server):
    def handle_message(self, message):
        global COUNT
        COUNT += 1


class SetsGlobal(Server):
    def handle_message(self, message):
        def keep():
            global LAST
            LAST = message

        keep()


class SetsInModule(Server):
    def handle_message(self, message):
        global_data.last = message


class CountsItself(Server):
    count = 0

    def handle_message(self, message):
        self.count += 1

    def reset(self):
        self.count = 0


class KeepsLast(Server):
    def handle_message(self, message):
        self.last = message


class SetsOnClass(Server):
    count = 0

    def handle_message(self, message):
        SetsOnClass.count += 1


class SetsElsewhere(MyServer):
    def handle_message(self, message):
        self.state.last = message["subject"]


class SetsProperty(MyServer):
    """A test reads it by the property."""

    @property
    def last(self):
        return self._last

    async def handle_DATA(self, server, session, envelope):
        self._last = envelope.content
        return "250 OK"


LOST = {
    "global": (ByGlobal(), f"list in the global variable 'INBOX' of {__name__},"),
    "function": (ByFunction(), f"list in the global variable 'INBOX' of {__name__},"),
    "module": (ByModule(), "list in the global variable 'received' of global_data,"),
    "function of module": (
        ByFunctionOfModule(),
        "list in the global variable 'received' of global_data,",
    ),
    "class": (OnClass(), "list in the attribute 'received' of OnClass,"),
    "by class": (ByClass(), "list in the attribute 'received' of ByClass,"),
    "helper": (ByHelper(received=[]), "list in the attribute 'received' of ByHelper,"),
    "property": (ByProperty(received=[]), "list in the attribute 'received' of ByProperty,"),
    "static method": (ByStaticMethod(), f"list in the global variable 'INBOX' of {__name__},"),
    "small program": (
        RunsAProgram(received=[], program=program(20)),
        "list in the attribute 'received' of RunsAProgram,",
    ),
    "argument": (AsArgument(received=[]), "list in the attribute 'received' of AsArgument,"),
    "last argument": (
        AsLastArgument(received=[]),
        "list in the attribute 'received' of AsLastArgument,",
    ),
    "to method": (
        ToMethod(inbox=queue.Queue()),
        "queue.Queue in the attribute 'inbox' of ToMethod,",
    ),
    "class method": (ByClassMethod(), "list in the attribute 'received' of ByClassMethod,"),
    "default": (ByDefault(), "list in the parameter 'inbox' of ByDefault.handle_message,"),
    "alias": (ByAlias(received=[]), "list in the attribute 'received' of ByAlias,"),
    "bound method": (
        ByCallback(on_mail=queue.Queue().put),
        "queue.Queue in the callable in the attribute 'on_mail' of ByCallback,",
    ),
    "bound method of a builtin": (
        ByCallback(on_mail=[].append),
        "list in the callable in the attribute 'on_mail' of ByCallback,",
    ),
    "partial": (
        ByCallback(on_mail=functools.partial(remember)),
        f"list in the global variable 'INBOX' of {__name__},",
    ),
    "lambda": (
        ByCallback(on_mail=lambda message: INBOX.append(message)),
        f"list in the global variable 'INBOX' of {__name__},",
    ),
    "method": (ByCallback(on_mail=Collector().add), "attribute 'items' of Collector,"),
    "callable object": (ByCallback(on_mail=Collector()), "attribute 'items' of Collector,"),
    "object": (ByObject(collector=Collector()), "attribute 'items' of Collector,"),
    "inner function": (ByInnerFunction(received=[]), "'received' of ByInnerFunction,"),
    "comprehension": (ByComprehension(received=[]), "'received' of ByComprehension,"),
    "super": (BySuper(received=[]), "'received' of BySuper,"),
    "base class": (ByBaseClass(received=[]), "'received' of ByBaseClass,"),
    "inherited": (Inherited(received=[]), "'received' of Inherited,"),
    "decorated": (Decorated(received=[]), "'received' of Decorated,"),
    "slot": (BySlot(slotted=Slotted()), "queue.Queue in the attribute 'inbox' of Slotted,"),
    "reset": (InReset(event=threading.Event()), "attribute 'event' of InReset,"),
    "drained": (Drained(inbox=queue.Queue()), "queue.Queue in the attribute 'inbox' of Drained,"),
    "cleared": (Cleared(received=[]), "attribute 'received' of Cleared,"),
    "beside": (
        BesideItsQueue("localhost", 0, MessageQueue()),
        "list in the attribute 'received' of BesideItsQueue,",
    ),
    "thread": (ByThread(inbox=queue.Queue()), "queue.Queue in the attribute 'inbox' of ByThread,"),
}


@pytest.mark.parametrize("case", LOST)
def test_each_place(case):
    server, where = LOST[case]
    (text,) = warned(server)
    assert where in text


class StartsAThreadWithIt(MyServer):
    def handle_message(self, message):
        threading.Thread(target=print, args=(self.inbox,)).start()
        self.inbox.put(message)


class Memoizes(MyServer):
    def handle_message(self, message):
        tries = self.tries.setdefault(message.envelope.mail_from, [])
        tries.append(message)
        if len(tries) > 3:
            raise LookupError


class LooksItselfUp(MyServer):
    def handle_message(self, message):
        self.received.append(message)
        if len(getattr(self, "received")) > 3:  # noqa: B009
            raise LookupError


class AddsALogHandler(MyServer):
    def handle_message(self, message):
        logging.getLogger("mail.of.a.test").handlers.append(logging.NullHandler())


class KeepsATask(MyServer):
    async def handle_NOOP(self, server, session, envelope, arg):
        self.task = asyncio.create_task(asyncio.sleep(0))
        return "250 OK"


#: What sets a variable or an attribute may well mean that for itself.
ITS_OWN_AFFAIR = {
    "counts globally": CountsGlobally(),
    "sets global": SetsGlobal(),
    "sets in module": SetsInModule(),
    "counts itself": CountsItself(),
    "keeps last": KeepsLast(),
    "sets on class": SetsOnClass(),
    "sets on object": SetsElsewhere(state=Collector()),
    "sets property": SetsProperty(),
    "starts a thread with it": StartsAThreadWithIt(inbox=queue.Queue()),
    "memoizes": Memoizes(tries={}),
    "looks itself up": LooksItselfUp(received=[]),
    "adds a log handler": AddsALogHandler(),
    "keeps a task": KeepsATask(),
}


@pytest.mark.parametrize("case", ITS_OWN_AFFAIR)
def test_no_warning(case):
    assert warned(ITS_OWN_AFFAIR[case]) == []


def test_a_closure_and_an_attribute_of_the_instance():
    inbox = queue.Queue()

    class Closing(Server):
        def handle_message(self, message):
            inbox.put(message)

    (text,) = warned(Closing())
    assert "the queue.Queue in the variable 'inbox' that " in text
    assert "Closing.handle_message closes over, and only" in text
    server = Server()
    server.handle_message = [].append
    (text,) = warned(server)
    assert "list in the callable in the attribute 'handle_message' of Server," in text


def test_each_object_is_named_once():
    inbox = queue.Queue()
    server = Puts(inbox=inbox, also=inbox)
    server.handle_RCPT = lambda *_: inbox.put("recipient")
    assert len(warned(server)) == 1
    both = type("Both", (Puts,), {"handle_DATA": Sets.handle_RCPT})
    assert len(warned(both(inbox=inbox, event=threading.Event()))) == 2


# What is not reported.

NAMES = ["kim@example.com"]
SETTINGS = {"limit": 10}
LOGGER = logging.getLogger("somebody")


class OnlyReads(Server):
    def handle_message(self, message):
        if message.envelope.mail_from in NAMES and len(NAMES) < SETTINGS["limit"]:
            LOGGER.warning("%s", SETTINGS.get("text", NAMES[0]))


class Remembers(MyServer):
    """Has a memory of its own."""

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in self.seen:
            return "450 4.2.0 Seen"
        self.seen.append(address)
        return "250 OK"


class RemembersElsewhere(MyServer):
    def handle_message(self, message):
        self.seen[message["subject"]] = message

    async def handle_MAIL(self, server, session, envelope, address, options):
        return "250 OK" if len(self.seen) < 3 else "452 4.3.1 Full"


class OwnThread(MyServer):
    """Its own thread, in the server process, takes what it puts."""

    def handle_message(self, message):
        threading.Thread(target=self._work).start()
        self.jobs.put(message)

    def _work(self):
        self.jobs.get(timeout=1)


class KeepsTasks(MyServer):
    """As the documentation of asyncio wants it."""

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        task = asyncio.create_task(self.work())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return responses

    async def work(self):
        await asyncio.sleep(0)


class Scripted(MyServer):
    def handle_message(self, message):
        reply = self.replies.pop(0)
        if reply:
            raise ValueError(reply)


class OwnLocals(Server):
    def handle_message(self, message):
        inbox = queue.Queue()
        inbox.put(message)
        lines = []
        lines.append(message)
        found = {}
        found["x"] = message
        message["X-Seen"] = "yes"
        message.envelope.options = []


class IntoSomethingElse(MyServer):
    def handle_message(self, message):
        local = {}
        local[self.names[0]] = 1
        local[SETTINGS["limit"]] = self.names


class Locks(MyServer):
    def handle_message(self, message):
        with self.lock:
            self.slots.acquire()
            self.slots.release()


class Waits(MyServer):
    """The test opens it before the server starts."""

    def handle_message(self, message):
        self.event.wait(1)


class Initialised(MyServer):
    """All this happens in the test process."""

    def __init__(self):
        super().__init__(received=[], made=[])
        self.received.append(self)
        INBOX.append(self)

    def messages(self):
        self.made.append(1)
        return self.received


class Overrides(Appends):
    def handle_message(self, message):
        pass


class Tagging(QueueServer):
    def handle_message(self, message):
        message["X-Tag"] = "x"
        super().handle_message(message)
        self.queue.put("more")
        box = self.queue
        box.put("and more")


class AsProcess(MyServer):
    def handle_message(self, message):
        self.sizes.put(len(message.raw))
        self.event.set()


RESOURCE = None


class MakesOnFirstUse(Server):
    resource = None

    def handle_message(self, message):
        global RESOURCE
        if RESOURCE is None:
            RESOURCE = open(os.devnull)
        if self.resource is None:
            self.resource = RESOURCE
            self.resource.close()


class LimitsItself(Server):
    count = 0

    def handle_message(self, message):
        self.count += 1

    def reset(self):
        self.count = 0

    async def handle_MAIL(self, server, session, envelope, address, options):
        return "452 4.3.1 Full" if self.count > 3 else "250 OK"


class LimitsItsClass(Server):
    count = 0

    def handle_message(self, message):
        LimitsItsClass.count += 1
        if self.count > 3:
            raise ValueError


def is_full(server):
    return len(server.names) + server.count > 10


class AsksAnother(MyServer):
    count = 0

    def handle_message(self, message):
        self.count += 1
        self.names.append(message["subject"])
        if is_full(self):
            raise ValueError


def first_of(box, message):
    box.append(message)
    return box[0]


class PassesOn(MyServer):
    """To somebody who reads it, or who may."""

    def handle_message(self, message):
        first_of(self.received, message)
        self.names.append(message)
        print(self.names)
        self.more.append(message)
        keep_in(self.more[0], message)
        self.others.append(message)
        keep_in(message=message, box=self.others)


class SetsWhatIsReadElsewhere(MyServer):
    @property
    def mode(self):
        return "x"

    @mode.setter
    def mode(self, value):
        self.lines = value

    def handle_message(self, message):
        self.data_size_limit = 1000
        self.mode = self.lines
        self.thread.name = "mine"
        LOGGER.disabled = False
        message.seen = True
        message.envelope.seen = True


class Unusual(MyServer):
    """Nothing of this may be run when it is looked for."""

    @property
    def box(self):
        raise AssertionError

    def __getattr__(self, name):
        raise AssertionError(name)

    def handle_message(self, message):
        self.box.append(message)
        self.odd.append(message)


class Pretending:
    """Says that it is a list, as proxies do."""

    @property
    def __class__(self):
        return list

    @property
    def __dict__(self):
        raise AssertionError

    def append(self, item):
        pass


SILENT = {
    "plain": Server(),
    "plain with queue": QueueServer("localhost", 0, queue.Queue()),
    "only reads": OnlyReads(),
    "remembers": Remembers(seen=[]),
    "remembers elsewhere": RemembersElsewhere(seen={}),
    "own thread": OwnThread(jobs=queue.Queue()),
    "keeps tasks": KeepsTasks(tasks=set()),
    "scripted": Scripted(replies=["no", ""]),
    "own locals": OwnLocals(),
    "into something else": IntoSomethingElse(names=["x"]),
    "locks": Locks(lock=threading.Lock(), slots=threading.Semaphore(2)),
    "waits": Waits(event=threading.Event()),
    "initialised": Initialised(),
    "overrides": Overrides(received=[]),
    "tagging a queue": Tagging("localhost", 0, queue.Queue()),
    "tagging": Tagging("localhost", 0, MessageQueue()),
    "multiprocessing": AsProcess(sizes=multiprocessing.Queue(), event=multiprocessing.Event()),
    "simple queue": AsProcess(sizes=multiprocessing.SimpleQueue(), event=multiprocessing.Event()),
    "makes on first use": MakesOnFirstUse(),
    "limits itself": LimitsItself(),
    "limits its class": LimitsItsClass(),
    "asks another": AsksAnother(names=[]),
    "runs a program": RunsAProgram(received=[], program=program(80)),
    "passes on": PassesOn(received=[], names=[], more=[], others=[]),
    "sets what is read elsewhere": SetsWhatIsReadElsewhere(
        lines=1, thread=threading.current_thread()
    ),
    "unusual": Unusual(odd=Pretending()),
    "nothing there": Puts(),
}


@pytest.mark.parametrize("case", SILENT)
def test_no_false_alarm(case):
    assert warned(SILENT[case]) == []


def test_a_manager_is_no_false_alarm():
    with multiprocessing.Manager() as manager:
        assert warned(AsProcess(sizes=manager.Queue(), event=manager.Event())) == []
        assert warned(Appends(received=manager.list())) == []
        assert warned(Stores(received=manager.dict())) == []


# The warning.


def test_start_warns_at_the_line_that_starts_and_goes_on(start_method):
    controller = Controller(Appends(received=[]), start_method=start_method)
    with pytest.warns(HandlerDataWarning) as caught:
        controller.start()
    try:
        assert Path(caught[0].filename) == Path(__file__)
        send_to(controller, "lost")
    finally:
        controller.stop()
    assert controller.server.received == []


def test_entering_warns_at_the_with_statement():
    with pytest.warns(HandlerDataWarning) as caught:
        with Controller(ByGlobal()):
            pass
    assert Path(caught[0].filename) == Path(__file__)


def test_as_an_error_it_leaves_nothing_behind(start_method):
    controller = Controller(Puts(inbox=queue.Queue()), start_method=start_method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(HandlerDataWarning, match="'inbox' of Puts"):
            controller.start()
    assert not controller.is_running
    assert controller.pid is None
    assert not multiprocessing.active_children()
    controller.server.handle_message = print
    controller.start_method = "fork"
    controller.stop()


def test_a_queue_that_cannot_be_pickled_is_both():
    controller = Controller(Puts(inbox=queue.Queue()), start_method="spawn")
    with pytest.warns(HandlerDataWarning), pytest.raises(StartError, match="inbox"):
        controller.start()


def test_queue_controllers_never_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with QueueController() as controller:
            send_to(controller, "x")


def test_looking_takes_no_time():
    """A start takes some milliseconds; this is to be a small part of it."""
    servers = [*(server for server, _ in LOST.values()), *SILENT.values()]
    best = min(_seconds(servers) for _ in range(5))
    assert best / len(servers) < 0.001


def _seconds(servers: list[Server]) -> float:
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for server in servers:
            warn_of_lost_data(server)
    return time.process_time() - began
