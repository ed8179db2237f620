"""Where Redis is, and how to reach it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_to_bytes, urlsplit

from toromq import server
from toromq._bridge import NativeConnection
from toromq.errors import ConfigurationError
from toromq.options import milliseconds, refuse_unknown, whole

_SCHEMES: Final = "redis://host:port/db, rediss://host:port/db, unix:///path/to/socket, embedded:PATH"
_QUERY: Final = {"db": "db", "user": "username", "username": "username", "pass": "password", "password": "password"}


class Connection:
    """A connection to Redis that queues and workers share.

    Making one has no side effect; the first operation connects. The queues of a process that are given the same object
    use one socket; a worker adds three of its own (commands, waiting, locks).

    Args:
        url: redis://user:password@host:port/db, rediss:// for TLS, unix:///path?db=0, or embedded:PATH for a server
            that starts with its first user. Percent-encode what is special in a URL. Default: $TOROMQ_URL, else
            redis://localhost:6379/0, unless `host` or `path` is given.
        host: name or address. Default: localhost.
        port: default: 6379.
        path: of a unix socket, instead of host and port.
        db: the number of the database. Default: 0.
        username: default: the server's default user.
        password: for servers that want one; never shown in errors.
        tls: encrypt, as rediss:// does. Certificates are checked against the usual authorities, or `ca_file`.
        ca_file: PEM file of the authority that signed the server's certificate.
        cert_file: PEM file of our own certificate, with `key_file`.
        key_file: PEM file of its key.
        client_name: what CLIENT LIST calls the connections; the one on which a worker waits is named as Node names it.
        connect_timeout: milliseconds that making a connection may take.
        command_timeout: milliseconds until an operation gives up while Redis is away. Workers never give up.

    Raises:
        ConfigurationError: an option is not allowed, or is given both here and in the URL.

    Example:
        >>> Connection("redis://localhost:6379/0", client_name="web")
        Connection('localhost:6379', db=0)
    """

    def __init__(
        self,
        url: str | None = None,
        /,
        *,
        host: str | None = None,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        db: int | None = None,
        username: str | None = None,
        password: str | None = None,
        tls: bool | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        cert_file: str | os.PathLike[str] | None = None,
        key_file: str | os.PathLike[str] | None = None,
        client_name: str | None = None,
        connect_timeout: int | timedelta = 2000,
        command_timeout: int | timedelta = 5000,
    ) -> None:
        """See the class."""
        given: dict[str, Any] = {
            "host": host, "port": port, "path": path, "db": db, "username": username, "password": password, "tls": tls,
        }  # fmt: skip
        if url is None and host is None and path is None:
            url = os.environ.get("TOROMQ_URL") or "redis://localhost:6379/0"
        parts = {} if url is None else _parts(url)
        for name, value in parts.items():
            if given.get(name) is not None:
                raise ConfigurationError(f"{name}: given in the URL and as an option; give it once")
            given[name] = value
        self._embedded: str | None = given.pop("embedded", None)
        for name in ("host", "username", "password"):
            if given[name] is not None and not isinstance(given[name], str):
                raise ConfigurationError(f"{name}: got {type(given[name]).__name__}; allowed is a text")
        if (self._embedded is not None or given["path"] is not None) and (host or port or tls):
            raise ConfigurationError("host, port and tls are for TCP; leave them out for a unix socket")
        if client_name is not None and (not client_name.isprintable() or " " in client_name or not client_name):
            raise ConfigurationError(f"client_name: got {client_name!r}; allowed is a text without spaces")
        if (cert_file is None) != (key_file is None):
            raise ConfigurationError("cert_file and key_file: give both or none")
        self._options: dict[str, Any] = {
            "host": given["host"] or "localhost",
            "port": whole("port", given["port"] or 6379, 1, 65535),
            "path": None if given["path"] is None else os.fspath(given["path"]),
            "db": whole("db", given["db"] or 0, 0),
            "username": given["username"],
            "password": given["password"],
            "tls": bool(given["tls"]),
            "ca": _pem("ca_file", ca_file),
            "certificate": _pem("cert_file", cert_file),
            "key": _pem("key_file", key_file),
            "client_name": client_name,
            "connect_timeout": max(1, milliseconds("connect_timeout", connect_timeout)),
            "command_timeout": max(1, milliseconds("command_timeout", command_timeout)),
        }
        if not self._options["tls"] and (ca_file or cert_file):
            raise ConfigurationError("ca_file, cert_file and key_file are for TLS; use rediss:// or tls=True")
        self._made: tuple[int, NativeConnection] | None = None

    def __repr__(self) -> str:
        """Where it leads, without the password."""
        options = self._options
        if self._embedded is not None:
            return f"Connection('embedded:{self._embedded}')"
        where = options["path"] or f"{options['host']}:{options['port']}"
        return f"Connection({where!r}, db={options['db']})"

    def _native(self) -> NativeConnection:
        pid = os.getpid()
        # A forked child must not use its parent's socket.
        if self._made is None or self._made[0] != pid:
            if self._embedded is not None:
                joined = server.connect(self._embedded)
                server.watch(joined)
                self._options["path"] = joined.socket_path
            self._made = (pid, NativeConnection(self._options))
        return self._made[1]


def connection_of(given: Connection | str | None) -> Connection:
    """What a queue or worker was given, as a connection."""
    if isinstance(given, Connection):
        return given
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(f"connection: got {type(given).__name__}; allowed is a URL or a toromq.Connection")
    return Connection(given)


def _parts(url: str) -> dict[str, Any]:
    """What a URL says. Its text is never part of an error: it may hold a password."""
    if not isinstance(url, str):
        raise ConfigurationError(f"connection: got {type(url).__name__}; allowed is a URL: {_SCHEMES}")
    if url.startswith("embedded:"):
        return {"embedded": url.removeprefix("embedded:") or ".toromq"}
    try:
        parsed = urlsplit(url)
        port = parsed.port
    except ValueError as error:
        raise ConfigurationError(f"connection: this is no URL ({error}); allowed is one of {_SCHEMES}") from None
    if parsed.scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(f"connection: unknown scheme {parsed.scheme!r}; allowed is one of {_SCHEMES}")
    parts = _credentials(parsed)
    for key, value in parse_qsl(parsed.query, keep_blank_values=True):
        refuse_unknown({key: value}, _QUERY, "the query of a connection's URL")
        parts[_QUERY[key]] = value
    if parsed.scheme == "unix":
        if not parsed.path:
            raise ConfigurationError("connection: unix:// without a path; write unix:///path/to/socket")
        parts["path"] = os.fsdecode(unquote_to_bytes(parsed.path))
    else:
        parts |= {"host": parsed.hostname or "localhost", "tls": parsed.scheme == "rediss"}
        if port is not None:
            parts["port"] = port
        if parsed.path.strip("/"):
            parts["db"] = parsed.path.strip("/")
    if "db" in parts:
        if not parts["db"].isdecimal():
            raise ConfigurationError(f"db: got {parts['db']!r} in the URL; allowed is a number, as in redis://host:6379/0")
        parts["db"] = int(parts["db"])
    return parts


def _credentials(parsed: SplitResult) -> dict[str, Any]:
    found = {"username": parsed.username, "password": parsed.password}
    return {name: unquote(value) for name, value in found.items() if value}


def _pem(name: str, file: str | os.PathLike[str] | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: can't be read: {error}") from error
