"""Every Lua command alone, against all keys it leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.scripts.commands import Queue

if TYPE_CHECKING:
    import redis as redis_py


@pytest.fixture
def mail(redis: redis_py.Redis, prefix: str) -> Queue:
    """An empty queue."""
    return Queue(redis, prefix)
