"""A few words of RESP: one command to the server, over a connection of its own."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final, Literal
from urllib.parse import quote

REPLY_TIMEOUT: Final = 2.0
"""Seconds for one reply over the unix socket; a healthy server needs well under a millisecond."""


class ServerReplyError(Exception):
    """The server answered with an error."""


def unix_url(socket_path: str) -> str:
    """The URL of a unix socket, percent-encoded: clients would read a bare '%', '?' or '#' as part of the URL."""
    return "unix://" + quote(os.fsencode(socket_path))


def command(socket_path: str, *words: str) -> str:
    """Send one command and return its status or bulk reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(REPLY_TIMEOUT)
        connection.connect(socket_path)
        encoded = [word.encode() for word in words]
        connection.sendall(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        )
        with connection.makefile("rb") as replies:
            head = replies.readline().rstrip(b"\r\n")
            if not head:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            if head.startswith(b"-"):
                raise ServerReplyError(head[1:].decode(errors="replace"))
            body = replies.read(int(head[1:])) if head.startswith(b"$") else head[1:]
            return body.decode(errors="replace")


def ping(socket_path: str) -> Literal["ready", "loading", "silent", "absent"]:
    """Tell whether a server answers there: fully, while it reads its data back, not in time, or not at all."""
    try:
        command(socket_path, "PING")
    except ServerReplyError as error:
        # Any other error is still an answer; what it means is for the real client to say.
        return "loading" if str(error).startswith("LOADING") else "ready"
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return "absent"
    except OSError:
        return "silent"
    return "ready"


def info(socket_path: str) -> dict[str, str]:
    """What the server's INFO says."""
    lines = command(socket_path, "INFO").splitlines()
    return {key: value for key, colon, value in (line.partition(":") for line in lines) if colon}
