"""What `Connection` understands, what it refuses, and that no error and no repr shows a password. Nothing connects."""

from __future__ import annotations

import inspect
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import toromq
from toromq import Connection, sync
from toromq.errors import ConfigurationError

SCHEMES = "redis://host:port/db, rediss://host:port/db, unix:///path/to/socket, embedded:PATH"
DURATION = "allowed is a timedelta or milliseconds, 0 or more"


@pytest.fixture(autouse=True)
def _no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOROMQ_URL", raising=False)


def made(*arguments: Any, **options: Any) -> dict[str, Any]:
    """What the engine would be given."""
    return dict(Connection(*arguments, **options)._options)


def refusal(kind: type[Exception], *arguments: Any, **options: Any) -> str:
    """The text of the error that these arguments get, its causes included."""
    with pytest.raises(kind) as caught:
        Connection(*arguments, **options)
    # What a log would show, without the lines of source, which hold the literals of this test.
    shown = traceback.TracebackException.from_exception(caught.value, limit=0)
    return "".join(shown.format())


# --- URLs -----------------------------------------------------------------------------------------------------------

URLS: list[tuple[str, dict[str, Any]]] = [
    ("redis://", {"host": "localhost", "port": 6379, "db": 0, "tls": False, "path": None}),
    ("redis://redis.example", {"host": "redis.example", "port": 6379, "db": 0, "tls": False}),
    ("redis://redis.example/", {"host": "redis.example", "db": 0}),
    ("redis://redis.example:7000/3", {"host": "redis.example", "port": 7000, "db": 3}),
    ("REDIS://redis.example:1", {"host": "redis.example", "port": 1, "tls": False}),
    ("redis://redis.example:65535?db=15", {"port": 65535, "db": 15}),
    ("redis://127.0.0.1:7000", {"host": "127.0.0.1", "port": 7000}),
    ("redis://[::1]:7000/3", {"host": "::1", "port": 7000, "db": 3}),
    ("rediss://redis.example:7000", {"host": "redis.example", "port": 7000, "tls": True}),
    ("redis://:sesame@h", {"username": None, "password": "sesame"}),
    ("redis://app:sesame@h", {"username": "app", "password": "sesame"}),
    ("redis://app@h", {"username": "app", "password": None}),
    ("redis://app%40team:p%3A%2F%40%23%3F%25%20w@h:1/2", {"username": "app@team", "password": "p:/@#?% w", "db": 2}),
    ("redis://:p%C3%A4ss@h", {"password": "p\u00e4ss"}),
    ("redis://h?user=app&pass=sesame", {"username": "app", "password": "sesame"}),
    ("redis://h?username=app&password=se%26same", {"username": "app", "password": "se&same"}),
    ("unix:///run/redis.sock", {"path": "/run/redis.sock", "db": 0, "tls": False}),
    ("unix:///run/a%20b%3F.sock?db=2", {"path": "/run/a b?.sock", "db": 2}),
    ("unix://app:sesame@/run/redis.sock", {"path": "/run/redis.sock", "username": "app", "password": "sesame"}),
]


@pytest.mark.parametrize(("url", "expected"), URLS, ids=[url for url, _ in URLS])
def test_a_url_says_where_redis_is_and_who_we_are_there(url: str, expected: dict[str, Any]) -> None:
    options = made(url)
    assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "path"), [("embedded:/data/q", "/data/q"), ("embedded:q", "q"), ("embedded:", ".toromq")]
)
def test_an_embedded_url_names_a_directory(url: str, path: str) -> None:
    assert Connection(url)._embedded == path


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h", f"connection: unknown scheme 'http'; allowed is one of {SCHEMES}"),
        ("localhost:6379", f"connection: unknown scheme 'localhost'; allowed is one of {SCHEMES}"),
        ("/run/redis.sock", f"connection: unknown scheme ''; allowed is one of {SCHEMES}"),
        ("", f"connection: unknown scheme ''; allowed is one of {SCHEMES}"),
        ("unix://", "connection: unix:// without a path; write unix:///path/to/socket"),
        ("redis://h:65536", f"allowed is one of {SCHEMES}"),
        ("redis://h:-1", f"allowed is one of {SCHEMES}"),
        ("redis://h:web", f"allowed is one of {SCHEMES}"),
        ("redis://[::1", f"connection: this is no URL (Invalid IPv6 URL); allowed is one of {SCHEMES}"),
        ("redis://h/web", "db: got 'web' in the URL; allowed is a number, as in redis://host:6379/0"),
        ("redis://h/1.5", "db: got '1.5' in the URL; allowed is a number, as in redis://host:6379/0"),
        ("redis://h/-1", "db: got '-1' in the URL; allowed is a number, as in redis://host:6379/0"),
        ("redis://h/0/1", "db: got '0/1' in the URL; allowed is a number, as in redis://host:6379/0"),
        ("redis://h?db=web", "db: got 'web' in the URL; allowed is a number"),
        ("redis://h?db=", "db: got '' in the URL; allowed is a number"),
        ("redis://h/99999999999999999999", "db: got 99999999999999999999; allowed is a whole number from 0"),
        ("redis://h:0", "port: got 0"),
        ("unix://run/redis.sock", "connection:"),
    ],
)
def test_a_url_that_is_none_is_refused_with_what_is_allowed(url: str, message: str) -> None:
    assert message in refusal(ConfigurationError, url)


@pytest.mark.parametrize("url", [5, b"redis://h", ["redis://h"], Path("redis://h")])
def test_a_url_that_is_no_text_is_refused_by_its_kind(url: Any) -> None:
    assert f"connection: got {type(url).__name__}; allowed is a URL: {SCHEMES}" in refusal(ConfigurationError, url)


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("pasword=x", "'pasword'; did you mean 'password'?"),
        ("usr=x", "'usr'; did you mean 'user'?"),
        ("timeout=5", "'timeout'; allowed are db, pass, password, user, username"),
        ("DB=5", "'DB'; allowed are db, pass, password, user, username"),
    ],
)
def test_an_unknown_word_in_a_query_is_refused_with_the_nearest_known_one(query: str, hint: str) -> None:
    assert f"the query of a connection's URL has no option {hint}" in refusal(TypeError, f"redis://h?{query}")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://h/0?db=1", "db"),
        ("redis://h?db=1&db=2", "db"),
        ("redis://:one@h?password=two", "password"),
        ("redis://h?pass=one&password=two", "password"),
        ("redis://one@h?user=two", "username"),
    ],
)
def test_what_a_url_says_twice_is_refused(url: str, name: str) -> None:
    assert f"{name}: " in refusal(ConfigurationError, url)


# --- options --------------------------------------------------------------------------------------------------------


def test_options_say_the_same_as_a_url(tmp_path: Path) -> None:
    options = {"host": "h", "port": 7000, "db": 3, "username": "app", "password": "p:/@#?% w"}
    assert made(**options) == made("redis://app:p%3A%2F%40%23%3F%25%20w@h:7000/3")
    assert made(host="h", tls=True) == made("rediss://h")
    assert made(path=tmp_path / "s.sock", db=2) == made(f"unix://{tmp_path}/s.sock?db=2")


def test_a_url_can_be_completed_by_options() -> None:
    options = made("redis://h:7000", db=3, username="app", password="sesame", client_name="web")
    assert (options["host"], options["port"], options["db"]) == ("h", 7000, 3)
    assert (options["username"], options["password"], options["client_name"]) == ("app", "sesame", "web")


def test_durations_are_milliseconds_or_timedeltas() -> None:
    options = made("redis://h", connect_timeout=timedelta(seconds=1.5), command_timeout=250)
    assert (options["connect_timeout"], options["command_timeout"]) == (1500, 250)
    assert (made()["connect_timeout"], made()["command_timeout"]) == (2000, 5000)


def test_without_anything_the_url_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repr(Connection()) == "Connection('localhost:6379', db=0)"
    monkeypatch.setenv("TOROMQ_URL", "redis://:sesame@redis.example:7000/3")
    assert repr(Connection()) == "Connection('redis.example:7000', db=3)"
    assert made()["password"] == "sesame"
    assert repr(Connection("redis://h")) == "Connection('h:6379', db=0)"
    assert repr(Connection(host="h")) == "Connection('h:6379', db=0)"
    assert repr(Connection(path="/s")) == "Connection('/s', db=0)"


@pytest.mark.parametrize("module", [toromq, sync], ids=["async", "sync"])
def test_queues_and_workers_take_their_url_from_the_environment(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOROMQ_URL", "redis://redis.example:7000/3")
    for user in (module.Queue("q"), module.Worker("q", print)):
        assert repr(user._connection) == "Connection('redis.example:7000', db=3)"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOROMQ_URL", "")
    assert repr(Connection()) == "Connection('localhost:6379', db=0)"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"port": 7000}, "'localhost:7000', db=0"),
        ({"db": 3}, "'localhost:6379', db=3"),
        ({"tls": True}, "'localhost:6379', db=0"),
        ({"password": "sesame"}, "'localhost:6379', db=0"),
        ({"username": "app"}, "'localhost:6379', db=0"),
    ],
)
def test_one_option_alone_changes_one_thing_of_the_default(options: dict[str, Any], where: str) -> None:
    assert repr(Connection(**options)) == f"Connection({where})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": 5}, "host: got int; allowed is a text"),
        ({"host": b"h"}, "host: got bytes; allowed is a text"),
        ({"host": "h", "port": "7000"}, "port: got '7000'; allowed is a whole number from 1 to 65535"),
        ({"host": "h", "port": -1}, "port: got -1; allowed is a whole number from 1 to 65535"),
        ({"host": "h", "port": 65536}, "port: got 65536; allowed is a whole number from 1 to 65535"),
        ({"host": "h", "port": True}, "port: got True; allowed is a whole number from 1 to 65535"),
        ({"host": "h", "port": 1.0}, "port: got 1.0; allowed is a whole number from 1 to 65535"),
        ({"host": "h", "db": -1}, "db: got -1; allowed is a whole number from 0"),
        ({"host": "h", "db": "1"}, "db: got '1'; allowed is a whole number from 0"),
        ({"host": "h", "username": 5}, "username: got int; allowed is a text"),
        ({"host": "h", "password": 5}, "password: got int; allowed is a text"),
        ({"host": "h", "client_name": "a b"}, "client_name: got 'a b'; allowed is a text without spaces"),
        ({"host": "h", "client_name": "a\nb"}, "client_name: got 'a\\nb'; allowed is a text without spaces"),
        ({"host": "h", "client_name": ""}, "client_name: got ''; allowed is a text without spaces"),
        ({"host": "h", "connect_timeout": -1}, f"connect_timeout: got -1; {DURATION}"),
        ({"host": "h", "connect_timeout": "1s"}, f"connect_timeout: got '1s'; {DURATION}"),
        ({"host": "h", "connect_timeout": None}, f"connect_timeout: got None; {DURATION}"),
        ({"host": "h", "connect_timeout": True}, f"connect_timeout: got True; {DURATION}"),
        ({"host": "h", "command_timeout": float("nan")}, f"command_timeout: got nan; {DURATION}"),
        ({"host": "h", "command_timeout": float("inf")}, f"command_timeout: got inf; {DURATION}"),
        ({"host": "h", "command_timeout": timedelta(seconds=-1)}, f"command_timeout: got -1000.0; {DURATION}"),
        ({"host": "h", "tls": True, "ca_file": "/no/such"}, "ca_file: can't be read: [Errno 2]"),
        ({"host": "h", "tls": True, "cert_file": "/no/such", "key_file": "/no/such"}, "cert_file: can't be read"),
        ({"host": "h", "port": 0}, "port: got 0; allowed"),
        ({"host": "h", "db": False}, "db: got False; allowed"),
        ({"host": "h", "db": ""}, "db: got ''; allowed"),
        ({"host": ""}, "host: got ''"),
        ({"host": "h", "tls": "no"}, "tls: got 'no'"),
        ({"path": 5}, "path: got int"),
        ({"path": b"/s"}, "path: got bytes"),
        ({"host": "h", "client_name": 5}, "client_name: got 5"),
        ({"host": "h", "client_name": "\u00e9"}, "client_name: got"),
        ({"host": "h", "tls": True, "ca_file": 5}, "ca_file: got int"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(options: dict[str, Any], message: str) -> None:
    assert message in refusal(ConfigurationError, **options)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("redis://h", {"host": "g"}, "host: given in the URL and as an option; give it once"),
        ("redis://h", {"host": "h"}, "host: given in the URL and as an option; give it once"),
        ("redis://h:1", {"port": 2}, "port: given in the URL and as an option; give it once"),
        ("redis://h/1", {"db": 2}, "db: given in the URL and as an option; give it once"),
        ("redis://h?db=1", {"db": 0}, "db: given in the URL and as an option; give it once"),
        ("redis://app@h", {"username": "b"}, "username: given in the URL and as an option; give it once"),
        ("redis://:sesame@h", {"password": "b"}, "password: given in the URL and as an option; give it once"),
        ("rediss://h", {"tls": False}, "tls: given in the URL and as an option; give it once"),
        ("unix:///s", {"path": "/t"}, "path: given in the URL and as an option; give it once"),
        ("unix:///s", {"host": "h"}, "host, port and tls are for TCP; leave them out for a unix socket"),
        ("unix:///s", {"port": 1}, "host, port and tls are for TCP"),
        ("embedded:d", {"host": "h"}, "host, port and tls are for TCP"),
        (None, {"path": "/s", "host": "h"}, "host, port and tls are for TCP"),
        (None, {"path": "/s", "port": 1}, "host, port and tls are for TCP"),
        ("rediss://h", {"cert_file": "/c"}, "cert_file and key_file: give both or none"),
        ("rediss://h", {"key_file": "/c"}, "cert_file and key_file: give both or none"),
        ("redis://h", {"ca_file": __file__}, "ca_file, cert_file and key_file are for TLS; use rediss:// or tls=True"),
        ("unix:///s", {"ca_file": __file__}, "ca_file, cert_file and key_file are for TLS"),
        ("redis://h", {"cert_file": __file__, "key_file": __file__}, "ca_file, cert_file and key_file are for TLS"),
        ("redis://h", {"path": "/s"}, "path"),
        ("embedded:d", {"path": "/s"}, "path"),
    ],
)
def test_options_that_clash_are_refused(url: str | None, options: dict[str, Any], message: str) -> None:
    assert message in refusal(ConfigurationError, url, **options)


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    assert "did you mean 'command_timeout'?" in refusal(TypeError, "redis://h", comand_timeout=5)


def test_a_file_that_holds_no_certificate_is_refused_by_the_name_of_its_option() -> None:
    assert "ca_file" in refusal(ConfigurationError, "rediss://h", ca_file=__file__)


# --- secrets --------------------------------------------------------------------------------------------------------

SECRET = "geheim"


@pytest.mark.parametrize(
    "connection",
    [
        Connection(f"redis://app:{SECRET}@h:1/2"),
        Connection(f"redis://h?password={SECRET}"),
        Connection(f"unix://:{SECRET}@/s"),
        Connection(host="h", password=SECRET),
    ],
    ids=repr,
)
def test_a_repr_shows_where_it_leads_but_no_password(connection: Connection) -> None:
    assert SECRET not in repr(connection)
    assert SECRET not in str(connection)
    for module in (toromq, sync):
        assert SECRET not in repr(module.Queue("q", connection=connection))
        assert SECRET not in repr(module.Worker("q", print, connection=connection))


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (f"redis://:{SECRET}@h:web", {}),
        (f"redis://:{SECRET}@h:65536", {}),
        (f"redis://:{SECRET}@h/web", {}),
        (f"redis://:{SECRET}@h?pasword=1", {}),
        (f"redis://h?pasword={SECRET}", {}),
        (f"redis://h?db=web&password={SECRET}", {}),
        (f"http://:{SECRET}@h", {}),
        (f"{SECRET}@h", {}),
        (f"redis://:{SECRET}@h", {"password": "other"}),
        ("redis://:other@h", {"password": SECRET}),
        (f"redis://:{SECRET}@h", {"host": "g"}),
        (f"redis://:{SECRET}[@h", {}),
        (f"unix://:{SECRET}@/s", {"host": "h"}),
        (None, {"password": SECRET.encode()}),
        # Passwords whose special characters were not percent-encoded: a common slip.
        (f"redis://:{SECRET}/x@h", {}),
        (f"redis://app:{SECRET}#x@h", {}),
        (f"redis://:{SECRET}?x@h", {}),
        (f"redis://:12/{SECRET}@h", {}),
        (f"redis://:12?{SECRET}=x@h", {}),
        (f"redis://:\u2100{SECRET}@h", {}),
    ],
)
def test_no_error_shows_a_password(url: str | None, options: dict[str, Any]) -> None:
    assert SECRET not in refusal(Exception, url, **options)


def test_every_option_is_written_down() -> None:
    """Each option has a line in the docstring, so that the tables above and the documentation stay whole."""
    text = inspect.getdoc(Connection) or ""
    for name in inspect.signature(Connection).parameters:
        assert f"    {name}: " in text, name


@pytest.mark.parametrize("module", [toromq, sync], ids=["async", "sync"])
@pytest.mark.parametrize("user", ["Queue", "Worker"])
def test_queues_and_workers_refuse_what_is_no_connection(module: Any, user: str) -> None:
    rest = () if user == "Queue" else (print,)
    with pytest.raises(ConfigurationError, match=r"connection: got int; allowed is a URL or a toromq\.Connection"):
        getattr(module, user)("q", *rest, connection=5)
    with pytest.raises(ConfigurationError, match="connection: unknown scheme 'http'"):
        getattr(module, user)("q", *rest, connection="http://h")
