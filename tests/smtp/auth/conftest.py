"""A server that knows some users, and a client that may log in there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from auth_client import LOGINS, AuthClient

from lazr_smtptest import QueueController


@pytest.fixture(scope="module")
def running() -> Iterator[QueueController]:
    with QueueController(auth=LOGINS) as controller:
        yield controller


@pytest.fixture
def client(server: QueueController) -> Iterator[AuthClient]:
    with AuthClient(server) as client:
        yield client
