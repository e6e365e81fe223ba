"""One server, and leases of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from lazr_smtptest import Lease, SharedController, connect


@pytest.fixture(scope="module")
def running_shared() -> Iterator[SharedController]:
    """The shared server of a module's tests."""
    with SharedController() as shared:
        yield shared


@pytest.fixture
def lease(running_shared: SharedController) -> Iterator[Callable[[str], Lease]]:
    """Take leases, which end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(
            connect(running_shared.address, running_shared.key, name=name)
        )


@pytest.fixture
def kim(lease: Callable[[str], Lease]) -> Lease:
    return lease("test_kim, gw0")


@pytest.fixture
def lee(lease: Callable[[str], Lease]) -> Lease:
    return lease("test_lee, gw1")
