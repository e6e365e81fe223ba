"""The versions of TLS that a server speaks."""

from __future__ import annotations

import ssl

import pytest
from helpers import send
from tls_client import MODES, ended, secured, versions

from lazr_smtptest import QueueController
from lazr_smtptest.tls import TLS

pytest.importorskip("trustme", reason="trustme is an extra")

OLD, NEW = "TLSv1.2", "TLSv1.3"


def member(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("limits", "spoken"),
    [
        ({}, [OLD, NEW]),
        ({"minimum_version": OLD}, [OLD, NEW]),
        ({"minimum_version": NEW}, [NEW]),
        ({"maximum_version": OLD}, [OLD]),
        ({"minimum_version": OLD, "maximum_version": OLD}, [OLD]),
        ({"minimum_version": NEW, "maximum_version": NEW}, [NEW]),
        ({"minimum_version": ssl.TLSVersion.TLSv1_3}, [NEW]),
    ],
    ids=str,
)
def test_what_is_spoken(loop, mode, limits, spoken):
    with QueueController(tls=TLS(mode, **limits), uvloop=loop) as controller:
        with secured(controller) as client:
            assert client.sock.version() == spoken[-1]
            send(client, "hello")
        assert controller.queue.get_nowait().envelope.tls == spoken[-1]
        for name in (OLD, NEW):
            only = versions(minimum_version=member(name), maximum_version=member(name))
            if name in spoken:
                with secured(controller, only(controller)) as client:
                    assert client.sock.version() == name
                continue
            with pytest.raises(ssl.SSLError, match="(?i)alert protocol version"):
                with secured(controller, only(controller)):
                    pass
            session = ended(controller)
            assert session.tls is None
            assert session.dialogue[-1].text.startswith(
                "TLS failed: the client has no TLS version in common with the server: "
            )


def test_restart():
    with QueueController(tls=TLS("implicit", maximum_version=OLD)) as controller:
        with secured(controller) as client:
            assert client.sock.version() == OLD
        controller.restart(tls=TLS("implicit", minimum_version=NEW))
        with secured(controller) as client:
            assert client.sock.version() == NEW
