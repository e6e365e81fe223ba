"""How often hypothesis tries; where CI is set, always with the same examples."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings


def tries(count: int, **options: Any) -> settings:
    return settings(
        max_examples=count, deadline=None, derandomize=bool(os.environ.get("CI")), **options
    )
