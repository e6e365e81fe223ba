"""A server with all extensions, on each event loop."""

from __future__ import annotations

import pytest
from helpers import fresh


@pytest.fixture
def server(each_loop):
    return fresh(each_loop)
