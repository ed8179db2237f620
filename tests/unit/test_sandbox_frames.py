"""Frames between a worker and its children: whatever is sent arrives as it was, or it is known that it did not."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toromq._sandbox.frames import Channel, ChannelClosedError

# Far more than a socket holds.
_MUCH = "x" * 5_000_000


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Two connected channels."""
    first, second = map(Channel, socket.socketpair())
    yield first, second
    first.close()
    second.close()


@given(frames=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text()))))
def test_frames_arrive_as_they_were_and_in_order(frames: list[dict[str, Any]]) -> None:
    first, second = map(Channel, socket.socketpair())
    for frame in frames:
        first.send(frame)
    first.close()
    assert [second.receive() for _ in frames] == frames
    assert second.receive() is None
    second.close()


def test_a_lone_surrogate_arrives(ends: tuple[Channel, Channel]) -> None:
    ends[0].send({"text": "\ud800 \x00 é"})
    assert ends[1].receive() == {"text": "\ud800 \x00 é"}


def test_what_comes_in_pieces_is_put_together() -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    text = json.dumps({"a": list(range(10))}).encode()
    received: list[Any] = []
    thread = threading.Thread(target=lambda: received.extend([channel.receive(), channel.receive()]))
    thread.start()
    for byte in (struct.pack("!I", len(text)) + text) * 2:
        raw.send(bytes((byte,)))
    thread.join(20)
    assert received == [{"a": list(range(10))}] * 2
    raw.close()
    channel.close()


def test_a_frame_that_the_socket_cannot_hold_waits_for_its_reader(ends: tuple[Channel, Channel]) -> None:
    thread = threading.Thread(target=ends[0].send, args=({"much": _MUCH},))
    thread.start()
    assert ends[1].receive() == {"much": _MUCH}
    thread.join(20)
    assert not thread.is_alive()


def test_frames_of_many_threads_do_not_mix(ends: tuple[Channel, Channel]) -> None:
    def send(n: int) -> None:
        for _ in range(20):
            ends[0].send({"n": str(n) * 30_000})

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    arrived = [ends[1].receive() for _ in range(160)]
    for thread in threads:
        thread.join(20)
    counts = {str(n): 0 for n in range(8)}
    for frame in arrived:
        assert frame is not None
        (letter,) = set(frame["n"])
        counts[letter] += 1
    assert set(counts.values()) == {20}


def test_a_frame_that_is_cut_off_is_the_end(ends: tuple[Channel, Channel]) -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    raw.send(struct.pack("!I", 100) + b'{"half":')
    raw.close()
    assert channel.receive() is None
    channel.close()


def test_nobody_reads_any_more(ends: tuple[Channel, Channel]) -> None:
    ends[1].close()
    with pytest.raises(ChannelClosedError):
        ends[0].send({})
    assert ends[0].is_broken
    with pytest.raises(ChannelClosedError):
        ends[0].send({})


def test_a_frame_that_is_given_up_half_way_breaks_the_channel(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].send({"much": _MUCH}, timeout=0.05)
    assert ends[0].is_broken
    with pytest.raises(ChannelClosedError):
        ends[0].send({})


def test_a_sender_that_finds_another_one_stuck_gives_up_and_breaks_nothing(ends: tuple[Channel, Channel]) -> None:
    stuck = threading.Thread(target=ends[0].send, args=({"much": _MUCH},))
    stuck.start()
    # It has begun when something of it arrived, and holds the channel until all of it did.
    raw = ends[1]._end
    raw.setblocking(True)
    first = raw.recv(1)
    with pytest.raises(TimeoutError):
        ends[0].send({"cancel": 1}, timeout=0.05)
    assert not ends[0].is_broken
    raw.setblocking(False)
    ends[1]._received += first
    assert ends[1].receive() == {"much": _MUCH}
    stuck.join(20)
    ends[0].send({"after": 1})
    assert ends[1].receive() == {"after": 1}
