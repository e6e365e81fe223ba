"""Real clients that send chunks where those are offered: Exim, and esmtp, of libESMTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from helpers import EVENT_LOOPS, loop_name, only_message
from mailers import Mailers
from programs import HEAD, RECIPIENTS, SENDER, Failed

from lazr_smtptest import QueueController
from lazr_smtptest.sessions import Session

CONTENTS = {
    "plain": HEAD + b"plain\r\n\r\nHello.\r\n\r\nThis is the end.\r\n",
    "dots": HEAD + b"dots\r\n\r\n.\r\n..\r\n.x\r\n...\r\nx.\r\n\r\n.\r\n.\r\n",
    "8-bit": HEAD
    + "8bit\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\nżółw € 🐢\r\n".encode(),
    "long": HEAD + b"long\r\n\r\n" + b"".join(b"%d." % i * 150 + b"\r\n" for i in range(600)),
}


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def chunking(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    """In the clear, since Exim takes TLS where it can, and knows no authority here."""
    with QueueController("127.0.0.1", offer=("CHUNKING",), uvloop=request.param) as controller:
        yield controller


def with_exim(server: QueueController, mailers: Mailers, content: bytes) -> None:
    mailers.exim(server, content)


def with_esmtp(server: QueueController, mailers: Mailers, content: bytes) -> None:
    mailers.esmtp(server, content)


def chunks(session: Session) -> list[str]:
    return [command.argument for command in session.commands if command.verb == "BDAT"]


clients = pytest.mark.parametrize("client", [with_exim, with_esmtp])

Client = Callable[[QueueController, Mailers, bytes], None]


@clients
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("is_slow", [True, False])
def test_what_they_send_arrives(
    server: QueueController, mailers: Mailers, client: Client, content: bytes, is_slow: bool
) -> None:
    if is_slow:
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
    client(server, mailers, content)
    message = only_message(server)
    assert message.raw == content
    assert message.envelope.mail_from == SENDER
    # esmtp names the last one first.
    assert message.envelope.rcpt_tos == RECIPIENTS[:: 1 if client is with_exim else -1]
    (session,) = server.sessions()
    sizes = chunks(session)
    assert sizes[-1].endswith(" LAST")
    assert sum(int(size.split()[0]) for size in sizes) == len(content)
    assert "DATA" not in {command.verb for command in session.commands}
    assert not {"early-talk", "no-final-crlf"} & {problem.code for problem in session.problems}


@clients
@pytest.mark.parametrize("offer", [(), ("CHUNKING", "BINARYMIME")])
def test_what_they_do_is_up_to_the_offer(mailers: Mailers, client: Client, offer: tuple) -> None:
    with QueueController(offer=offer) as controller:
        client(controller, mailers, CONTENTS["plain"])
        (session,) = controller.sessions()
        verbs = {command.verb for command in session.commands}
    assert verbs & {"BDAT", "DATA"} == {"BDAT" if offer else "DATA"}


@pytest.mark.parametrize("stage", ["BDAT", "EOM"])
def test_what_exim_makes_of_a_refusal(
    server: QueueController, mailers: Mailers, stage: str
) -> None:
    fault = server.fault(stage, "554 5.6.0 Not such mail")
    with pytest.raises(Failed, match="554 5.6.0 Not such mail"):
        mailers.exim(server, CONTENTS["plain"])
    assert fault.fired == 1
    assert server.queue.empty()


@pytest.mark.parametrize("lmtp", [False, True])
def test_what_exim_makes_of_a_message_that_is_too_large(mailers: Mailers, *, lmtp: bool) -> None:
    """By LMTP it is told once for each recipient, and goes on with the next command."""
    options = {"offer": ("CHUNKING",), "data_size_limit": 100_000, "hide": ("SIZE",), "lmtp": lmtp}
    with QueueController("127.0.0.1", **options) as controller:
        with pytest.raises(Failed, match=r"552 5\.3\.4"):
            mailers.exim(controller, CONTENTS["long"])
        assert controller.queue.empty()
        (session,) = controller.sessions()
        told = [line.text[:3] for line in session.dialogue if line.speaker == "S"][-3:]
        assert told == (["552", "552", "221"] if lmtp else ["250", "552", "221"])
