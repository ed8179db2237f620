"""Telling a job that runs that it shall end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("toromq")

LOCK_LOST = "the job's lock was lost"
WORKER_CLOSES = "the worker closes"


class Cancellation:
    """Whether a job was told to end, and why. It is set once, from any thread; a second reason changes nothing.

    What runs a processor somewhere else can pass it on with `add_callback`, or wait for it in a thread of its own.
    """

    __slots__ = ("_callbacks", "_guard", "fails", "reason")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._callbacks: list[Callable[[str], object]] = []
        self.reason: str | None = None
        """Why; None as long as it is not set."""
        self.fails = False
        """Whether the job fails if that is what ends it; else it is another worker's by then, or is handed back."""

    def is_set(self) -> bool:
        """Whether the job was told to end."""
        return self.reason is not None

    def set(self, reason: str, *, fails: bool = False) -> bool:
        """Tell the job to end; whether nobody had done so before."""
        with self._guard:
            if self.reason is not None:
                return False
            self.fails = fails
            self.reason = reason
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            _call(callback, reason)
        return True

    def add_callback(self, callback: Callable[[str], object]) -> None:
        """Call it with the reason, once: in the thread that sets it, or here and now where it is set already."""
        with self._guard:
            reason = self.reason
            if reason is None:
                self._callbacks.append(callback)
        if reason is not None:
            _call(callback, reason)

    def remove_callback(self, callback: Callable[[str], object]) -> None:
        """Forget a callback; nothing happens where it was called already."""
        with self._guard:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most; whether it is."""
        woken = threading.Event()

        def wake(_: str) -> None:
            woken.set()

        self.add_callback(wake)
        try:
            woken.wait(timeout)
        finally:
            self.remove_callback(wake)
        return self.is_set()


def _call(callback: Callable[[str], object], reason: str) -> None:
    try:
        callback(reason)
    except Exception:
        log.exception("what a cancelled job was to call raised")
