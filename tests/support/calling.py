"""Threads that wait for the engine through the blocking face."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.support.eventually import eventually

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable


def wait_in_call(threads: Iterable[threading.Thread]) -> None:
    """Wait until all of these are within a blocking call."""

    def all_are() -> bool:
        frames = sys._current_frames()
        own = [frames.get(thread.ident or 0) for thread in threads]
        return all(frame is not None and frame.f_code.co_qualname == "BlockingPort.call" for frame in own)

    eventually(all_are)
