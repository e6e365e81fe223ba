"""A server of a test's own, and what its mail is read from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazr_smtptest import QueueController


@pytest.fixture
def controller() -> Iterator[QueueController]:
    with QueueController() as controller:
        yield controller


@pytest.fixture(params=["controller", "queue"])
def inbox(request, controller):
    """What the methods are called on."""
    return controller if request.param == "controller" else controller.queue


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool
