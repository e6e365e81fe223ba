"""A server that speaks LMTP, on each event loop, as if it were new each time."""

from __future__ import annotations

import pytest
from helpers import EVENT_LOOPS, LOGIN, fresh, loop_name

from lazr_smtptest import QueueController


@pytest.fixture(scope="module", params=EVENT_LOOPS, ids=loop_name)
def shared(request):
    with QueueController(
        "127.0.0.1", lmtp=True, auth=dict([LOGIN]), uvloop=request.param
    ) as controller:
        yield controller


@pytest.fixture
def server(shared):
    return fresh(shared)
