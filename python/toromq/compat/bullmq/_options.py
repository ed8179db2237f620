"""Options as dicts with bullmq's names, made into those of the real API."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from toromq._guards import is_mapping
from toromq._packing import given_options
from toromq.compat.bullmq._adapter import NotSupportedError
from toromq.connection import Connection
from toromq.errors import ConfigurationError
from toromq.options import DeduplicationOptions, JobOptions, RateLimit, TelemetryOptions

log = logging.getLogger("toromq")

Opts = Mapping[str, Any] | None


def camel(name: str) -> str:
    """`remove_on_fail` as `removeOnFail`."""
    return re.sub(r"_(.)", lambda letter: letter[1].upper(), name)


_JOB: Final = frozenset(JobOptions.__annotations__) - {"run_at"}
_REPEAT: Final = frozenset(
    ("every", "pattern", "tz", "start_date", "end_date", "limit", "offset", "immediately", "hash_seed")
)
# What a job scheduler gives its jobs.
_OF_A_SERIES: Final = ("repeat", "repeatJobKey", "prevMillis")
_NESTED: Final = {
    "deduplication": frozenset(DeduplicationOptions.__annotations__),
    "telemetry": frozenset(TelemetryOptions.__annotations__),
}
# What has no meaning here: the engine looks after its connections by itself.
_IDLE: Final = frozenset(("skipVersionCheck", "skipWaitingForReady", "runRetryDelay"))
# Options of redis-py: those that say where and as whom to connect, by our names.
_CLIENT: Final = {
    "host": "host", "port": "port", "db": "db", "username": "username", "password": "password", "path": "path",
    "unix_socket_path": "path", "ssl": "tls", "ssl_ca_certs": "ca_file", "ssl_certfile": "cert_file",
    "ssl_keyfile": "key_file", "client_name": "client_name",
}  # fmt: skip
# Those that change who is let in or who is trusted, in a way that is not there.
_REFUSED: Final = (
    "credential_provider", "redis_connect_func", "ssl_ca_data", "ssl_ca_path", "ssl_ciphers",
    "ssl_exclude_verify_flags", "ssl_include_verify_flags", "ssl_min_version", "ssl_password",
)  # fmt: skip
# Those that concern redis-py alone: how it waits, tries again, pools and decodes.
_TUNING: Final = re.compile(
    r"(socket|retry|encod|lib|maint|orig|oss)_?.*|health_check_interval|decode_responses|protocol|max_connections"
    r"|single_connection_client|driver_info|auto_close_connection_pool|event_dispatcher|legacy_responses|parser_class"
    r"|himport_registry|ssl_check_hostname|ssl_cert_reqs"
)


def connection(given: Any) -> Connection | str | None:
    """The connection that a URL, a dict of redis-py's options or a client of redis-py leads to."""
    if given is None or isinstance(given, Connection):
        return given
    if isinstance(given, str):
        return _url(given)
    pool = getattr(given, "connection_pool", None)
    if pool is not None:
        options = dict(pool.connection_kwargs)
        kind = getattr(pool, "connection_class", None)
        if any(base.__name__ == "SSLConnection" for base in getattr(kind, "__mro__", ())):
            options["ssl"] = True
        return _client({name: value for name, value in options.items() if _is_known(name)})
    if is_mapping(given):
        return _client(given) if given else None
    if hasattr(given, "nodes_manager"):
        raise NotSupportedError("connection: a Redis Cluster can't be used yet; give one server")
    raise ConfigurationError(
        f"connection: got a value of type {type(given).__name__}; allowed is a URL, a dict with host and port, or a "
        "client of redis-py"
    )


def _url(url: str) -> str:
    """A URL without what concerns redis-py alone."""
    place, mark, query = url.partition("?")
    if not mark:
        return url
    kept = [part for part in query.split("&") if not _TUNING.fullmatch(part.partition("=")[0])]
    return f"{place}?{'&'.join(kept)}" if kept else place


def _is_known(name: str) -> bool:
    return name in _CLIENT or name in _REFUSED or name == "ssl_cert_reqs"


def _client(given: Mapping[str, Any]) -> Connection:
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name in _REFUSED:
            if value is not None:
                raise NotSupportedError(f"connection.{name}: not there in toromq; see the options of toromq.Connection")
        elif name == "ssl_cert_reqs" and value not in ("required", 2):
            raise NotSupportedError(
                "connection.ssl_cert_reqs: certificates are always checked; name their authority in ssl_ca_certs"
            )
        elif name in _CLIENT:
            if value is not None:
                options[_CLIENT[name]] = value
        elif not _TUNING.fullmatch(name):
            near = difflib.get_close_matches(name, _CLIENT, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(sorted(_CLIENT))}"
            raise ConfigurationError(f"connection has no option {name!r}; {hint}")
    if not options.get("tls"):
        for name in ("tls", "ca_file", "cert_file", "key_file"):
            options.pop(name, None)
    if "port" in options:
        options["port"] = int(options["port"])
    if "path" not in options:
        options.setdefault("host", "localhost")
    return Connection(**options)


def job_options(opts: Opts, what: str = "a job") -> dict[str, Any]:
    """Options of a job."""
    options = _known(opts, _JOB, what)
    for name, known in _NESTED.items():
        if is_mapping(options.get(name)):
            options[name] = _known(options[name], known, name)
    # Times that have passed mean now, in bullmq too.
    delay = options.get("delay")
    if isinstance(delay, int | float) and delay < 0:
        options["delay"] = 0
    return options


def repeat_options(opts: Opts) -> dict[str, Any]:
    """Options of a job scheduler, without what does not concern it."""
    options = _known(opts, _REPEAT, "a job scheduler")
    every = options.get("every")
    idle = ("tz", "hash_seed") if every and not options.get("pattern") else ("offset",) if not every else ()
    given = {name: value for name, value in options.items() if name not in idle}
    if not every:
        given.pop("every", None)
    return given


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A job's stored options, as bullmq shows them."""
    return {"attempts": 0, "delay": 0, "backoff": None, **optsFromJSON(stored)}


def optsFromJSON(rawOpts: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are stored, by bullmq's names."""
    series = {name: rawOpts[name] for name in _OF_A_SERIES if name in rawOpts}
    return {**_camel_keys(given_options(rawOpts)), **series}


def _camel_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        camel(name): _camel_keys(value) if name in _NESTED and is_mapping(value) else value
        for name, value in options.items()
    }


def queue_options(opts: Opts) -> dict[str, Any]:
    """Options of a queue."""
    _refuse_backend(opts)
    options = _known(opts, frozenset(("connection", "prefix", "default_job_options")), "a queue")
    if options.get("default_job_options") is not None:
        options["default_job_options"] = job_options(options["default_job_options"], "defaultJobOptions")
    return _reached(options)


def events_options(opts: Opts) -> dict[str, Any]:
    """Options of a reader of events, or of who publishes some."""
    names = frozenset(("connection", "prefix", "autorun", "blocking_timeout", "last_event_id"))
    return _reached(_known(opts, names, "a reader of events"))


def worker_options(opts: Opts, accepted: Callable[..., Any]) -> dict[str, Any]:
    """Options of a worker: those that `accepted`, the real one, has."""
    _refuse_backend(opts)
    parameters = inspect.signature(accepted).parameters.values()
    known = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    options = _known(opts, known - {"backoff_strategy"} | {"autorun", "settings"}, "a worker")
    options.pop("autorun", None)
    settings: Mapping[str, Any] = options.pop("settings", None) or {}
    if settings.get("backoffStrategy") is not None:
        options["backoff_strategy"] = settings["backoffStrategy"]
    limiter, metrics = options.get("limiter"), options.get("metrics")
    if is_mapping(limiter):
        options["limiter"] = RateLimit(limiter.get("max", 0), limiter.get("duration", 0))
    if is_mapping(metrics):
        options["metrics"] = metrics.get("maxDataPoints")
    return _reached(options)


def _reached(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "connection": connection(options.get("connection"))}


def _refuse_backend(opts: Opts) -> None:
    if opts is not None and opts.get("backend") not in (None, "redis"):
        raise NotSupportedError(f"backend: got {opts['backend']!r}; toromq works on Redis and its like only")


def _known(opts: Opts, known: Iterable[str], what: str) -> dict[str, Any]:
    """The options that exist, by the real API's names. Others change nothing in bullmq: they are logged and left."""
    if opts is not None and not is_mapping(opts):
        raise ConfigurationError(f"options of {what}: got {opts!r}; allowed is a dict")
    names = {camel(name): name for name in known}
    options: dict[str, Any] = {}
    for name, value in (opts or {}).items():
        if name in names:
            if value is not None:
                options[names[name]] = value
        elif name not in _IDLE and name != "backend":
            near = difflib.get_close_matches(str(name), list(names), 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            log.warning("%s has no option %r, which is ignored%s", what, name, hint)
    return options
