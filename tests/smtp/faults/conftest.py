"""A server that faults are ordered from, as if it were new each time."""

from __future__ import annotations

import pytest
from helpers import LOGIN, fresh

from lazr_smtptest import QueueController


@pytest.fixture(scope="module")
def shared():
    with QueueController("127.0.0.1", auth=dict([LOGIN])) as controller:
        yield controller


@pytest.fixture
def server(shared):
    return fresh(shared)
