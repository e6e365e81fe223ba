"""What a type checker is to say of calls that a test makes: mypy --strict passes this file.

A line whose comment ignores an error is wrong, and mypy says so if it finds nothing there.
"""

from __future__ import annotations

import ssl

from lazr_smtptest import (
    TLS,
    Controller,
    Fault,
    Gate,
    Message,
    QueueController,
    Server,
    SharedController,
)
from lazr_smtptest.faults import STAGES, Stage


def right(smtptest: QueueController, controller: Controller) -> None:
    fault: Fault = smtptest.fault("RCPT", "451 4.7.1 Later", times=2)
    smtptest.fault("eom", drop=True).remove()
    smtptest.fault("data", drop="content", after=9)
    for stage in STAGES:
        controller.fault(stage, "421 4.3.2 Closing")
    fired: int = fault.fired
    with smtptest.gate("DATA", when="*@example.com") as gate:
        parked: int = gate.wait_parked(count=fired, timeout=10)
        gate.release(parked)
    message: Message = smtptest.wait(rcpt="kim@example.com")
    first: Message = smtptest.messages[0]
    later: list[Message] = smtptest.messages[1:]
    print(message.text, first.text, later, refuse(smtptest, "mail"))


def made(names: list[str], method: str, tls: TLS) -> list[Controller]:
    """Names may be any str: a mechanism may be one's own, and their case is ignored."""
    expired = TLS("implicit", variant="expired", minimum_version="TLSv1.3")
    asking = TLS(client_cert="optional", maximum_version=ssl.TLSVersion.TLSv1_3)
    servers = [Server(tls=each) for each in (expired, asking, tls)]
    servers += [Server(tls="starttls"), Server(auth=True, auth_mechanisms=names, offer=names)]
    return [
        SharedController(faults="all"),
        *(Controller(server, start_method=method) for server in servers),
    ]


def refuse(smtptest: QueueController, stage: Stage) -> Gate:
    smtptest.fault(stage, "550 5.7.1 No")
    return smtptest.gate(stage)


def wrong(smtptest: QueueController, stage: str) -> None:
    smtptest.fault("RCTP", "451 4.7.1 Later")  # type: ignore[arg-type]
    smtptest.gate("eof")  # type: ignore[arg-type]
    smtptest.fault(stage, "451 4.7.1 Later")  # type: ignore[arg-type]
    smtptest.fault("RCPT", "451 4.7.1 Later", count=2)  # type: ignore[call-arg]
    smtptest.gate("RCPT").wait_parked(2)  # type: ignore[call-arg]
    smtptest.hostname  # type: ignore[attr-defined]  # noqa: B018
    smtptest.wait(recipient="kim@example.com")  # type: ignore[call-arg]
    smtptest.expect_none(timeout=1)  # type: ignore[call-arg]
    smtptest.fault("RCPT", drop="later")  # type: ignore[arg-type]
    Server(tls="ssl")  # type: ignore[arg-type]
    TLS("ssl")  # type: ignore[arg-type]
    TLS(variant="revoked")  # type: ignore[arg-type]
    TLS(client_cert="CERT_REQUIRED")  # type: ignore[arg-type]
    TLS(minimum_version="TLSv1.1")  # type: ignore[arg-type]
    SharedController(faults="mine")  # type: ignore[arg-type]
