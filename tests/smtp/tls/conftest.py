"""Servers that have TLS, in both ways, on each event loop."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from tls_client import LOGINS, MODES

from lazr_smtptest import QueueController

LOOPS = [
    pytest.param(False, id="asyncio"),
    pytest.param(
        True,
        id="uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="uvloop is an extra"
        ),
    ),
]


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def running_starttls(loop: bool) -> Iterator[QueueController]:
    with QueueController(tls="starttls", auth=LOGINS, uvloop=loop) as controller:
        yield controller


@pytest.fixture(scope="module")
def running_implicit(loop: bool) -> Iterator[QueueController]:
    with QueueController(tls="implicit", uvloop=loop) as controller:
        yield controller


@pytest.fixture
def starttls(running_starttls: QueueController) -> QueueController:
    running_starttls.reset()
    return running_starttls


@pytest.fixture
def implicit(running_implicit: QueueController) -> QueueController:
    running_implicit.reset()
    return running_implicit


@pytest.fixture(params=MODES)
def server(
    request: pytest.FixtureRequest, starttls: QueueController, implicit: QueueController
) -> QueueController:
    return {"starttls": starttls, "implicit": implicit}[request.param]
