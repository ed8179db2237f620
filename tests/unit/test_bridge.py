"""How the engine's answers reach an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toromq import _bridge


class _Arrived:
    """What the engine has sent."""

    changed = False
    """There are no sockets to watch."""

    def __init__(self, *sent: tuple[int, Any]) -> None:
        self._sent = [*sent]

    def drain(self) -> list[tuple[int, Any]]:
        sent, self._sent = self._sent, []
        return sent


@pytest.mark.parametrize("raised", [KeyError, SystemExit])
async def test_who_raises_keeps_nothing_from_others(
    monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    port = _bridge.port()
    heard: list[str] = []

    def receive(_: Any) -> None:
        raise raised

    def start(_port: Any, ticket: int) -> int:
        return ticket

    bad, _ = port.attach(receive, start)
    good, _ = port.attach(heard.append, start)
    monkeypatch.setattr(port, "_port", _Arrived((bad, "x"), (good, "a"), (bad, "y"), (good, "b")))
    for _ in range(2):
        with pytest.raises(raised):
            port.deliver()
    port.deliver()
    assert heard == ["a", "b"]
    # The loop itself comes back to it, so that nobody has to ask.
    heard.clear()
    monkeypatch.setattr(port, "_port", _Arrived((bad, "x"), (good, "c")))
    with pytest.raises(raised):
        port.deliver()
    await asyncio.sleep(0)
    assert heard == ["c"]
    port.detach(bad)
    port.detach(good)
