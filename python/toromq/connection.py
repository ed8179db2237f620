"""Where Redis is, and how to reach it."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit

from toromq._bridge import NativeConnection, make
from toromq.errors import ConfigurationError
from toromq.options import check_client_name, flag, milliseconds, refuse_unknown, whole, with_hints

_SCHEMES: Final = "redis://host:port/db, rediss://host:port/db, unix:///path/to/socket, embedded:PATH"
_QUERY: Final = {"db": "db", "user": "username", "username": "username", "pass": "password", "password": "password"}


class Connection:
    """A connection to Redis that queues and workers share.

    Making one has no side effect; the first operation connects. The queues that are given the same object share
    sockets: one for each event loop that uses them, and up to five for blocking callers, however many threads those
    are. With TLS it is one for all. A worker adds three of its own (commands, waiting, locks).

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

    @with_hints
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
            "host": host, "port": port, "path": _path("path", path), "db": db, "username": username,
            "password": password, "tls": tls,
        }  # fmt: skip
        given = {name: value for name, value in given.items() if value is not None}
        if url is not None:
            parts = parts_of_url(url)
            for name in parts.keys() & given.keys():
                raise ConfigurationError(f"{name}: given in the URL and as an option; give it once")
            given |= parts
        elif host is None and path is None:
            given = parts_of_url(os.environ.get("TOROMQ_URL") or "redis://localhost:6379") | given
        self._embedded: str | None = given.pop("embedded", None)
        for name in ("host", "username", "password"):
            # Never the value: it may be the password.
            if name in given and (not isinstance(given[name], str) or (name == "host" and not given[name])):
                kind = "''" if given[name] == "" else type(given[name]).__name__
                raise ConfigurationError(f"{name}: got {kind}; allowed is a text")
        flag("tls", given.get("tls", False))
        if (self._embedded is not None or "path" in given) and ("port" in given or "tls" in given or host is not None):
            raise ConfigurationError("host, port and tls are for TCP; leave them out for a unix socket")
        if "path" in given and (self._embedded is not None or "host" in given):
            raise ConfigurationError("path: given beside another place to connect to; give one of them")
        if (cert_file is None) != (key_file is None):
            raise ConfigurationError("cert_file and key_file: give both or none")
        if not given.get("tls") and (ca_file is not None or cert_file is not None):
            raise ConfigurationError("ca_file, cert_file and key_file are for TLS; use rediss:// or tls=True")
        self._options: dict[str, Any] = {
            "host": given.get("host", "localhost"),
            "port": whole("port", given.get("port", 6379), 1, 65535),
            "path": given.get("path"),
            "db": whole("db", given.get("db", 0), 0),
            "username": given.get("username"),
            "password": given.get("password"),
            "tls": given.get("tls", False),
            "ca": _pem("ca_file", ca_file, b"CERTIFICATE"),
            "certificate": _pem("cert_file", cert_file, b"CERTIFICATE"),
            "key": _pem("key_file", key_file, b"PRIVATE KEY"),
            "client_name": None if client_name is None else check_client_name("client_name", client_name),
            "connect_timeout": max(1, milliseconds("connect_timeout", connect_timeout)),
            "command_timeout": max(1, milliseconds("command_timeout", command_timeout)),
        }
        _check_certificates(ca_file, cert_file, key_file)
        self._made: tuple[int, NativeConnection] | None = None

    def __repr__(self) -> str:
        """Where it leads, without the password."""
        options = self._options
        if self._embedded is not None:
            return f"Connection('embedded:{self._embedded}')"
        where = options["path"] or f"{options['host']}:{options['port']}"
        return f"Connection({where!r}, db={options['db']})"

    def close(self) -> None:
        """Let go of the socket that its queues share; the next operation of one of them makes a new one."""
        self._made = None

    def _native(self) -> NativeConnection:
        pid = os.getpid()
        # A forked child must not use its parent's socket.
        if self._made is None or self._made[0] != pid:
            if self._embedded is not None:
                from toromq import server  # Only those who use it pay for the import.

                joined = server.connect(self._embedded)
                server.watch(joined)
                self._options["path"] = joined.socket_path
            self._made = (pid, make(NativeConnection, self._options))
        return self._made[1]


def connection_of(given: Connection | str | None) -> Connection:
    """What a queue or worker was given, as a connection."""
    if isinstance(given, Connection):
        return given
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(f"connection: got {type(given).__name__}; allowed is a URL or a toromq.Connection")
    return Connection(given)


def parts_of_url(url: str) -> dict[str, Any]:
    """What a URL says. Nothing of it is shown in an error that could be part of a password."""
    if not isinstance(url, str):
        raise ConfigurationError(f"connection: got {type(url).__name__}; allowed is a URL: {_SCHEMES}")
    if url.startswith("embedded:"):
        return {"embedded": url.removeprefix("embedded:") or ".toromq"}
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in ("redis", "rediss", "unix") or "://" not in url:
        scheme = url.partition(":")[0] if ":" in url else ""
        raise ConfigurationError(f"connection: unknown scheme {scheme!r}; allowed is one of {_SCHEMES}")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    # A password whose special characters were not encoded ends the host's part too early.
    if "@" in rest[len(authority) :] and (scheme != "unix" or (authority and not authority.endswith("@"))):
        raise ConfigurationError(
            "connection: an '@' stands after the host's part of the URL; percent-encode the user and password "
            "(urllib.parse.quote(password, safe=''))"
        )
    try:
        parsed = urlsplit(url)
        port = parsed.port
    except ValueError as error:
        why = str(error) if str(error) == "Invalid IPv6 URL" else "its host or port can't be read"
        raise ConfigurationError(f"connection: this is no URL ({why}); allowed is one of {_SCHEMES}") from None
    found = [("username", unquote(parsed.username or "")), ("password", unquote(parsed.password or ""))]
    if scheme == "unix":
        if parsed.hostname or not parsed.path:
            raise ConfigurationError("connection: unix:// without a path; write unix:///path/to/socket")
        found.append(("path", os.fsdecode(unquote_to_bytes(parsed.path))))
    else:
        found += [("host", parsed.hostname or "localhost"), ("db", parsed.path.strip("/"))]
    found = [(name, value) for name, value in found if value]
    for key, value in parse_qsl(parsed.query, keep_blank_values=True):
        refuse_unknown({key: value}, _QUERY, "the query of a connection's URL")
        found.append((_QUERY[key], value))
    parts: dict[str, Any] = {}
    for name, value in found:
        if name in parts:
            raise ConfigurationError(f"{name}: given twice in the URL; give it once")
        parts[name] = value
    if "db" in parts:
        if not parts["db"].isdecimal():
            raise ConfigurationError(f"db: got {parts['db']!r} in the URL; allowed is a number, as in redis://host:6379/0")
        parts["db"] = int(parts["db"])
    if port is not None:
        parts["port"] = port
    if scheme == "rediss":
        parts["tls"] = True
    return parts


def _path(name: str, file: Any) -> str | None:
    if file is None:
        return None
    path: object = None
    with contextlib.suppress(TypeError):
        path = cast(object, os.fspath(file))
    if not isinstance(path, str):
        raise ConfigurationError(f"{name}: got {type(file).__name__}; allowed is a text or a pathlib.Path")
    return path


def _pem(name: str, file: Any, content: bytes) -> bytes | None:
    path = _path(name, file)
    if path is None:
        return None
    try:
        with open(path, "rb") as opened:
            found = opened.read()
    except OSError as error:
        raise ConfigurationError(f"{name}: can't be read: {error}") from error
    if b"-----BEGIN " not in found or content + b"-----" not in found:
        raise ConfigurationError(f"{name}: {path!r} holds no {content.decode().lower()} in PEM form")
    return found


def _check_certificates(ca_file: Any, cert_file: Any, key_file: Any) -> None:
    """Refuse what no handshake could use, while the one who wrote it is still looking."""
    if ca_file is None and cert_file is None:
        return
    import ssl  # Only those who have files to check pay for it.

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = "ca_file"
    try:
        if ca_file is not None:
            context.load_verify_locations(cafile=ca_file)
        name = "cert_file and key_file"
        if cert_file is not None:
            # Without a password, so that a key that wants one is refused instead of asked for at the terminal.
            context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"{name}: can't be used: {error}") from error
