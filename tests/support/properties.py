"""How often hypothesis tries; where CI is set, always with the same examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

#: Seconds for all tries.  The first test that has any text finds out what all characters are
#: like, which takes hypothesis long on a busy machine.
_TIMEOUT = 90


def tries(count: int, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    set_up = settings(
        max_examples=count, deadline=None, derandomize=bool(os.environ.get("CI")), **options
    )
    return lambda test: pytest.mark.timeout(_TIMEOUT)(set_up(test))
