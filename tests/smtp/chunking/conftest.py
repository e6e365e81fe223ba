"""A server that offers CHUNKING and BINARYMIME, on each event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import EVENT_LOOPS, LOGIN, fresh, loop_name

from lazr_smtptest import QueueController


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def chunking(request: pytest.FixtureRequest) -> Iterator[QueueController]:
    with QueueController(
        "127.0.0.1",
        offer=("CHUNKING", "BINARYMIME"),
        tls="starttls",
        auth=dict([LOGIN]),
        data_size_limit=1_000_000,
        uvloop=request.param,
    ) as controller:
        yield controller


@pytest.fixture
def server(chunking: QueueController) -> QueueController:
    return fresh(chunking)


@pytest.fixture(params=["quick", "slow"])
def way(request: pytest.FixtureRequest, server: QueueController) -> str:
    """Both ways of taking chunks: a fault that never fires takes the slow one."""
    if request.param == "slow":
        server.fault("NOOP", "450 4.0.0 No", when="nobody")
    return request.param
