"""Reaching Redis: every way in, who shares a socket with whom, and what is said when there is no way in."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import pytest
import redis

import toromq
from tests.support.eventually import aeventually, eventually
from tests.support.lossy import LossyProxy
from tests.support.redisbox import RedisBox, free_port
from toromq import Connection, server, sync
from toromq.errors import ConfigurationError, RedisConnectionError, ToroError

# Long enough for a slow machine, short enough for a test that waits for it.
PATIENCE = 200
START = 'start one with `toromq server start` and use connection="embedded:.toromq", or set TOROMQ_URL'
SECRET = "p:/@#?% geheim"



async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def box() -> Iterator[RedisBox]:
    """A server with users, on which the tests of this file count clients."""
    with RedisBox(requirepass="sesame") as made:
        # With a password, the default user's rights are for who gives it; `app` needs its own.
        made.client().execute_command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all")
        yield made


@pytest.fixture
def client(box: RedisBox) -> Iterator[redis.Redis]:
    made = box.client()
    made.flushall()
    # What a failed test left behind is held by its traceback.
    for entry in ours(made):
        made.client_kill_filter(_id=entry["id"])
    eventually(lambda: not ours(made))
    yield made
    made.close()


def ours(client: redis.Redis) -> list[dict[str, str]]:
    """The connections of toromq to a server."""
    return [entry for entry in client.client_list() if entry.get("lib-name") == "toromq"]


def left(client: redis.Redis) -> list[dict[str, str]]:
    """The connections that are still there once nobody can use them any more: workers are part of a cycle."""
    gc.collect()
    return ours(client)


def told(error: BaseException) -> str:
    """An error with its causes, as a log shows it, without the lines of source."""
    return "".join(traceback.TracebackException.from_exception(error, limit=0).format())


# --- ways in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        lambda box: f"redis://:sesame@127.0.0.1:{box.port}",
        lambda box: f"redis://:sesame@localhost:{box.port}/0",
        lambda box: f"redis://127.0.0.1:{box.port}?password=sesame&db=0",
        lambda box: f"unix://:sesame@{box.socket_path}",
        lambda box: f"unix://{box.socket_path}?pass=sesame",
        lambda box: Connection(host="127.0.0.1", port=box.port, password="sesame"),
        lambda box: Connection(f"redis://127.0.0.1:{box.port}", password="sesame"),
        lambda box: Connection(path=box.socket_path, password="sesame"),
    ],
)
async def test_a_queue_and_a_worker_reach_the_server(face: Any, box: RedisBox, client: redis.Redis, way: Any) -> None:
    where = way(box)
    results: list[Any] = []
    queue = face.Queue("q", connection=where)
    job = await done(queue.add("n", {"a": 1}))
    assert client.hget(f"bull:q:{job.id}", "data") == '{"a":1}'
    worker: toromq.Worker[Any, Any] = toromq.Worker(
        "q", lambda job: results.append(job.data), connection=where, drain_delay=1
    )
    async with worker:
        await aeventually(lambda: results == [{"a": 1}])
    unix = str(box.socket_path) in (where if isinstance(where, str) else repr(where))
    assert {"U" in entry["flags"] for entry in ours(client)} == {unix}


@pytest.mark.parametrize("number", [0, 3, 15])
@pytest.mark.parametrize(
    "way",
    [
        lambda box, number: f"{box.url[:-2]}/{number}",
        lambda box, number: f"{box.unix_url}?db={number}",
        lambda box, number: Connection(box.url[:-2], db=number),
        lambda box, number: Connection(path=box.socket_path, password="sesame", db=number),
    ],
)
async def test_each_database_holds_its_own_jobs(
    face: Any, box: RedisBox, client: redis.Redis, number: int, way: Any
) -> None:
    queue = face.Queue("q", connection=way(box, number))
    job = await done(queue.add("n"))
    assert [entry["db"] for entry in ours(client)] == [str(number)]
    with box.client(db=number) as there:
        assert there.exists(f"bull:q:{job.id}") == 1
    info: Any = client.info("keyspace")
    assert set(info) == {f"db{number}"}


async def test_the_url_of_the_environment_is_used(
    face: Any, box: RedisBox, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOROMQ_URL", box.unix_url)
    job = await done(face.Queue("q").add("n"))
    assert client.exists(f"bull:q:{job.id}") == 1


async def test_a_database_that_the_server_lacks_is_no_reason_to_start_another_server(face: Any, box: RedisBox) -> None:
    queue = face.Queue("q", connection=Connection(box.url[:-2], db=99, command_timeout=PATIENCE))
    with pytest.raises(RedisConnectionError, match="DB index is out of range") as caught:
        await done(queue.add("n"))
    assert "toromq server start" not in str(caught.value)


# --- who we are there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        lambda box: Connection(host="127.0.0.1", port=box.port, username="app", password=SECRET),
        lambda box: Connection(path=box.socket_path, username="app", password=SECRET),
        lambda box: f"redis://app:{quote(SECRET, safe='')}@127.0.0.1:{box.port}",
        lambda box: f"unix://app:{quote(SECRET, safe='')}@{box.socket_path}",
        lambda box: f"redis://127.0.0.1:{box.port}?username=app&password={quote(SECRET, safe='')}",
    ],
)
async def test_a_user_logs_in(face: Any, box: RedisBox, client: redis.Redis, way: Any) -> None:
    queue = face.Queue("q", connection=way(box))
    await done(queue.add("n"))
    assert [entry["user"] for entry in ours(client)] == ["app"]


@pytest.mark.parametrize("username", [None, "app", "nobody"])
@pytest.mark.parametrize(
    "action",
    [lambda queue: queue.add("n"), lambda queue: queue.get_job("1"), lambda queue: queue.get_job_counts()],
    ids=["add", "get_job", "get_job_counts"],
)
async def test_a_refused_login_is_told_without_the_password(
    face: Any, box: RedisBox, client: redis.Redis, username: str | None, action: Any
) -> None:
    wrong = "w:/@#?% geheim"
    connection = Connection(
        host="127.0.0.1", port=box.port, username=username, password=wrong, command_timeout=PATIENCE
    )
    queue = face.Queue("q", connection=connection)
    with pytest.raises(RedisConnectionError) as caught:
        await done(action(queue))
    text = told(caught.value)
    assert f"Redis at 127.0.0.1:{box.port} refused the login" in text
    assert "check the username and password of the connection" in text
    assert "geheim" not in text + repr(connection) + repr(queue)
    assert client.dbsize() == 0


async def test_a_missing_password_is_told_like_a_wrong_one(face: Any, box: RedisBox) -> None:
    queue = face.Queue("q", connection=Connection(host="127.0.0.1", port=box.port, command_timeout=PATIENCE))
    for action in (lambda: queue.add("n"), lambda: queue.get_job("1")):
        with pytest.raises(RedisConnectionError, match="check the username and password of the connection"):
            await done(action())


async def test_a_right_that_is_missing_is_told_in_the_words_of_redis(face: Any, box: RedisBox) -> None:
    box.client().execute_command("ACL", "SETUSER", "reader", "on", ">geheim", "~bull:other:*", "+@all")
    connection = Connection(host="127.0.0.1", port=box.port, username="reader", password="geheim")
    queue = face.Queue("q", connection=connection)
    with pytest.raises(ToroError, match=r"(?i)no ?perm") as caught:
        await done(queue.add("n"))
    assert "geheim" not in told(caught.value)


async def test_a_worker_that_is_refused_tells_so_and_starts_when_it_is_let_in(
    box: RedisBox, client: redis.Redis
) -> None:
    client.execute_command("ACL", "SETUSER", "late", "on", ">geheim-1", "~*", "&*", "+@all")
    connection = Connection(host="127.0.0.1", port=box.port, username="late", password="geheim-2")
    worker: toromq.Worker[Any, Any] = toromq.Worker("q", lambda job: job.data, connection=connection)
    errors: list[BaseException] = []
    results: list[Any] = []
    worker.on("error", errors.append)
    worker.on("completed", lambda job, result: results.append(result))
    async with worker:
        await aeventually(lambda: errors)
        assert "refused the login" in told(errors[0])
        assert not [error for error in errors if "geheim" in told(error)]
        client.execute_command("ACL", "SETUSER", "late", ">geheim-2")
        queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=box.url)
        await queue.add("n", 5)
        await aeventually(lambda: results == [5], timeout=30)


# --- names and shared sockets ---------------------------------------------------------------------------------------


async def test_the_clients_name_is_in_the_list_of_clients(face: Any, box: RedisBox, client: redis.Redis) -> None:
    queue = face.Queue("q", connection=Connection(box.url, client_name="web-1"))
    await done(queue.add("n"))
    (entry,) = ours(client)
    assert (entry["name"], entry["lib-ver"]) == ("web-1", toromq.__version__)


async def test_queues_with_one_connection_share_a_socket(face: Any, box: RedisBox, client: redis.Redis) -> None:
    connection = Connection(box.url, client_name="shared")
    queues = [face.Queue(f"q{n}", connection=connection) for n in range(5)]
    for queue in queues:
        await done(queue.add("n"))
        await done(queue.get_job_counts())
    assert [entry["name"] for entry in ours(client)] == ["shared"]


async def test_a_loop_and_a_thread_have_a_socket_each(box: RedisBox, client: redis.Redis) -> None:
    connection = Connection(box.url)
    one: toromq.Queue[Any, Any] = toromq.Queue("q", connection=connection)
    other: sync.Queue[Any, Any] = sync.Queue("q", connection=connection)
    await one.add("n")
    await asyncio.to_thread(other.add, "n")
    assert len(ours(client)) == 2
    assert await one.get_job_counts("waiting") == {"waiting": 2}


async def test_queues_with_a_url_have_sockets_of_their_own(face: Any, box: RedisBox, client: redis.Redis) -> None:
    queues = [face.Queue("q", connection=box.url) for _ in range(3)]
    for queue in queues:
        await done(queue.add("n"))
    assert len(ours(client)) == 3


async def test_nothing_connects_before_the_first_operation(face: Any, box: RedisBox, client: redis.Redis) -> None:
    connection = Connection(box.url)
    made = (face.Queue("q", connection=connection), face.Worker("q", print, connection=connection))
    assert ours(client) == []
    del made


async def test_closing_a_queue_leaves_the_shared_socket_to_the_others(
    face: Any, box: RedisBox, client: redis.Redis
) -> None:
    connection = Connection(box.url)
    one, other = (face.Queue(name, connection=connection) for name in ("one", "other"))
    for queue in (one, other):
        await done(queue.add("n"))
    (before,) = ours(client)
    await done(one.close())
    await done(one.close())
    await done(other.add("n"))
    assert [entry["id"] for entry in ours(client)] == [before["id"]]


async def test_closing_a_queue_with_a_url_closes_its_socket(face: Any, box: RedisBox, client: redis.Redis) -> None:
    queue = face.Queue("q", connection=box.url)
    await done(queue.add("n"))
    await done(queue.close())
    await aeventually(lambda: not ours(client), timeout=2)


async def test_a_socket_that_was_cut_is_made_anew_under_the_same_name(
    face: Any, box: RedisBox, client: redis.Redis
) -> None:
    queue = face.Queue("q", connection=Connection(box.url, client_name="again"))
    first = await done(queue.add("n", 1))
    (before,) = ours(client)
    client.client_kill_filter(_id=before["id"])
    second = await done(queue.add("n", 2))
    (after,) = ours(client)
    assert after["name"] == "again"
    assert after["id"] != before["id"]
    assert client.lrange("bull:q:wait", 0, -1) == [second.id, first.id]


async def test_a_read_over_a_socket_that_was_cut_is_tried_again(face: Any, box: RedisBox, client: redis.Redis) -> None:
    queue = face.Queue("q", connection=box.url)
    job = await done(queue.add("n", 1))
    (entry,) = ours(client)
    client.client_kill_filter(_id=entry["id"])
    assert (await done(queue.get_job(job.id))).data == 1


@pytest.mark.parametrize("queue_name", ["mail", "m\u00e4il \U0001f600", "a/b?", "x" * 100])
@pytest.mark.parametrize("worker_name", [None, "w-1"])
async def test_the_waiting_connection_of_a_worker_is_named_as_node_names_it(
    face: Any, box: RedisBox, client: redis.Redis, queue_name: str, worker_name: str | None
) -> None:
    connection = Connection(box.url, client_name="mine")
    worker = face.Worker(queue_name, lambda job: None, connection=connection, prefix="p:x", name=worker_name)
    expected = f"p:x:{base64.b64encode(queue_name.encode()).decode()}" + (f":w:{worker_name}" if worker_name else "")
    await done(worker.__aenter__() if face is toromq else worker.__enter__())
    try:
        await aeventually(lambda: expected in [entry["name"] for entry in ours(client)])
        waiting = await aeventually(lambda: [entry for entry in ours(client) if entry["cmd"].startswith("bzpopmin")])
        assert [entry["name"] for entry in waiting] == [expected]
        # One such name per worker, else dashboards count too many.
        assert [entry["name"] for entry in ours(client)].count(expected) == 1
        assert {entry["name"] for entry in ours(client)} == {expected, "mine"}
    finally:
        await done(worker.close())


async def test_a_worker_has_three_sockets_of_its_own(box: RedisBox, client: redis.Redis) -> None:
    connection = Connection(box.url)
    queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=connection)
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def process(job: toromq.Job[Any, Any]) -> None:
        started.set()
        await go_on.wait()

    await queue.add("n")
    (shared,) = ours(client)
    # Renewed at once, so that the connection for locks is used.
    worker: toromq.Worker[Any, Any] = toromq.Worker(
        "q", process, connection=connection, concurrency=2, lock_duration=1000, lock_renew_time=50
    )
    async with worker:
        await started.wait()
        await aeventually(lambda: len(ours(client)) == 4)
        go_on.set()
    assert shared["id"] in [entry["id"] for entry in ours(client)]
    del worker
    await aeventually(lambda: [entry["id"] for entry in left(client)] == [shared["id"]])


async def test_a_closed_worker_has_closed_its_sockets(face: Any, box: RedisBox, client: redis.Redis) -> None:
    worker = face.Worker("q", lambda job: None, connection=Connection(box.url))
    ready = threading.Event()
    worker.on("ready", ready.set)
    await done(worker.__aenter__() if face is toromq else worker.__enter__())
    await aeventually(ready.is_set)
    await done(worker.close())
    await aeventually(lambda: not ours(client), timeout=2)


# --- TLS ------------------------------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    """A certificate and its key, as files."""

    file: Path
    key: Path


class Authority:
    """Signs certificates with the `openssl` program."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.file, self._key = folder / "ca.pem", folder / "ca.key"
        self._run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority of a test",
                  "-keyout", str(self._key), "-out", str(self.file))  # fmt: skip

    def certificate(self, name: str, alternatives: str) -> Certificate:
        """For a server or client; `alternatives` such as `DNS:localhost,IP:127.0.0.1`."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={alternatives}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        self._run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", str(made.key), "-out", str(request))  # fmt: skip
        self._run("x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAkey", str(self._key), "-days", "2",
                  "-set_serial", str(time.monotonic_ns()), "-extfile", str(extensions),
                  "-out", str(made.file))  # fmt: skip
        return made

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class Proxy:
    """Takes TLS connections on a port of localhost and passes what they say to a server that knows no TLS."""

    def __init__(self, certificate: Certificate, target: Path, clients_of: Authority | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.file, certificate.key)
        if clients_of is not None:
            self._context.load_verify_locations(clients_of.file)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._target = target
        self._loop = asyncio.new_event_loop()
        # A handshake that fails is what some tests are about.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0
        self.clients: list[str] = []

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: Any = writer.get_extra_info("peercert")
        self.clients.append(dict(part[0] for part in peer["subject"])["commonName"] if peer else "")
        # Whenever this is cancelled, an end that stays open would complain once its loop is closed, in whichever test
        # the interpreter happens to find it.
        async with contextlib.AsyncExitStack() as ends:
            ends.push_async_callback(self._end, writer)
            back, forth = await asyncio.open_unix_connection(str(self._target))
            ends.push_async_callback(self._end, forth)
            # Done when either side ends.
            ways = [asyncio.ensure_future(self._copy(*way)) for way in ((reader, forth), (back, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _end(self, end: asyncio.StreamWriter) -> None:
        end.close()
        with contextlib.suppress(OSError):
            await end.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        # Those that are just being accepted included.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Papers(NamedTuple):
    """Who signs what."""

    authority: Authority
    stranger: Authority
    server: Certificate
    other_name: Certificate
    client: Certificate
    client_of_stranger: Certificate


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder / "ours"), Authority(folder / "strange")
    return Papers(
        authority,
        stranger,
        authority.certificate("server", "DNS:localhost,IP:127.0.0.1"),
        authority.certificate("other", "DNS:redis.example"),
        authority.certificate("web-1", "DNS:web-1"),
        stranger.certificate("web-2", "DNS:web-2"),
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("by_url", [True, False], ids=["rediss://", "tls=True"])
async def test_tls_reaches_a_server_whose_authority_is_given(
    face: Any, box: RedisBox, client: redis.Redis, papers: Papers, host: str, by_url: bool
) -> None:
    with Proxy(papers.server, box.socket_path) as proxy:
        ca_file = papers.authority.file
        if by_url:
            connection = Connection(f"rediss://app:{quote(SECRET, safe='')}@{host}:{proxy.port}/2", ca_file=ca_file)
        else:
            connection = Connection(
                host=host, port=proxy.port, db=2, tls=True, username="app", password=SECRET, ca_file=str(ca_file)
            )
        queue = face.Queue("q", connection=connection)
        job = await done(queue.add("n", {"a": 1}))
        assert [(entry["user"], entry["db"]) for entry in ours(client)] == [("app", "2")]
        assert (await done(queue.get_job(job.id))).data == {"a": 1}
        assert proxy.clients == [""]


async def test_a_worker_runs_over_tls(box: RedisBox, client: redis.Redis, papers: Papers) -> None:
    with Proxy(papers.server, box.socket_path) as proxy:
        connection = Connection(f"rediss://:sesame@localhost:{proxy.port}", ca_file=papers.authority.file)
        results: list[Any] = []
        worker: toromq.Worker[Any, Any] = toromq.Worker(
            "q", lambda job: job.data, connection=connection, lock_renew_time=50
        )
        worker.on("completed", lambda job, result: results.append(result))
        async with worker:
            queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=connection)
            jobs = await queue.add_bulk([("n", "x" * n * 1000) for n in range(30)])
            await aeventually(lambda: sorted(results) == [job.data for job in jobs], timeout=30)


@pytest.mark.parametrize("given", ["stranger", None], ids=["another authority", "the usual authorities"])
async def test_a_server_signed_by_somebody_else_is_refused(
    face: Any, box: RedisBox, client: redis.Redis, papers: Papers, given: str | None
) -> None:
    ca_file = papers.stranger.file if given else None
    with Proxy(papers.server, box.socket_path) as proxy:
        connection = Connection(f"rediss://:sesame@localhost:{proxy.port}", ca_file=ca_file, command_timeout=PATIENCE)
        with pytest.raises(RedisConnectionError) as caught:
            await done(face.Queue("q", connection=connection).add("n"))
        assert proxy.clients == []
    text = told(caught.value)
    assert f"localhost:{proxy.port} with TLS" in text
    assert "certificate" in text
    assert "sesame" not in text
    assert client.dbsize() == 0


async def test_a_server_of_another_name_is_refused(face: Any, box: RedisBox, papers: Papers) -> None:
    with Proxy(papers.other_name, box.socket_path) as proxy:
        connection = Connection(
            f"rediss://:sesame@localhost:{proxy.port}", ca_file=papers.authority.file, command_timeout=PATIENCE
        )
        with pytest.raises(RedisConnectionError, match=r"(?i)certificate.*name"):
            await done(face.Queue("q", connection=connection).add("n"))
        assert proxy.clients == []


async def test_the_advice_for_a_refused_certificate_is_about_certificates(box: RedisBox, papers: Papers) -> None:
    with Proxy(papers.server, box.socket_path) as proxy:
        connection = Connection(f"rediss://localhost:{proxy.port}", command_timeout=PATIENCE)
        with pytest.raises(RedisConnectionError, match="ca_file") as caught:
            await toromq.Queue("q", connection=connection).add("n")
    assert "toromq server start" not in str(caught.value)


async def test_a_client_shows_its_certificate(face: Any, box: RedisBox, client: redis.Redis, papers: Papers) -> None:
    with Proxy(papers.server, box.socket_path, clients_of=papers.authority) as proxy:
        connection = Connection(
            f"rediss://:sesame@localhost:{proxy.port}",
            ca_file=papers.authority.file, cert_file=papers.client.file, key_file=papers.client.key,
        )  # fmt: skip
        await done(face.Queue("q", connection=connection).add("n"))
        assert proxy.clients == ["web-1"]


@pytest.mark.parametrize("shows", [None, "client_of_stranger"], ids=["none", "one of somebody else"])
async def test_a_client_without_the_right_certificate_is_turned_away(
    face: Any, box: RedisBox, client: redis.Redis, papers: Papers, shows: str | None
) -> None:
    files: dict[str, Any] = {}
    if shows:
        files = {"cert_file": getattr(papers, shows).file, "key_file": getattr(papers, shows).key}
    with Proxy(papers.server, box.socket_path, clients_of=papers.authority) as proxy:
        connection = Connection(
            f"rediss://:sesame@localhost:{proxy.port}",
            ca_file=papers.authority.file, command_timeout=PATIENCE, **files,
        )  # fmt: skip
        with pytest.raises(RedisConnectionError) as caught:
            await done(face.Queue("q", connection=connection).add("n"))
        assert proxy.clients == []
    assert "sesame" not in told(caught.value)
    assert client.dbsize() == 0


async def test_tls_to_a_server_without_it_and_the_other_way_round_fail_in_time(
    face: Any, box: RedisBox, papers: Papers
) -> None:
    bounds: Any = {"connect_timeout": PATIENCE, "command_timeout": PATIENCE}
    with Proxy(papers.server, box.socket_path) as proxy:
        for connection in (
            Connection(f"rediss://:sesame@127.0.0.1:{box.port}", ca_file=papers.authority.file, **bounds),
            Connection(f"redis://:sesame@127.0.0.1:{proxy.port}", **bounds),
        ):
            with pytest.raises(RedisConnectionError) as caught:
                await done(face.Queue("q", connection=connection).add("n"))
            assert "sesame" not in told(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "ca_file",
        pytest.param("cert_file"),
        "key_file",
    ],
)
async def test_a_file_that_is_no_certificate_is_refused_before_anything_is_sent(
    face: Any, papers: Papers, option: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")
    files: dict[str, Any] = {
        "ca_file": papers.authority.file,
        "cert_file": papers.client.file,
        "key_file": papers.client.key,
    }
    where = f"rediss://localhost:{free_port()}"
    with pytest.raises(ConfigurationError, match=option):
        face.Queue("q", connection=Connection(where, **(files | {option: broken})))


# --- embedded -------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path, whose length depends on the test's name: a unix socket has room for about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="toromq-") as folder:
        path = Path(folder) / "data"
        yield path
        server.stop(path)


async def test_an_embedded_server_starts_with_its_first_user_and_serves_them_all(face: Any, directory: Path) -> None:
    connection = Connection(f"embedded:{directory}")
    queue = face.Queue("q", connection=connection)
    assert not directory.exists()
    job = await done(queue.add("n", {"a": 1}))
    other = face.Queue("q", connection=f"embedded:{directory}")
    assert (await done(other.get_job(job.id))).data == {"a": 1}
    results: list[Any] = []
    worker: toromq.Worker[Any, Any] = toromq.Worker("q", lambda job: job.data, connection=connection, drain_delay=1)
    worker.on("completed", lambda job, result: results.append(result))
    async with worker:
        await aeventually(lambda: results == [{"a": 1}])
    assert repr(connection) == f"Connection('embedded:{directory}')"
    path = str(server.connect(directory).socket_path)
    with redis.Redis(unix_socket_path=path, protocol=2, decode_responses=True) as there:
        assert there.hget(f"bull:q:{job.id}", "returnvalue") == '{"a":1}'
        assert {"U" in entry["flags"] for entry in ours(there)} == {True}


# --- nothing there --------------------------------------------------------------------------------------------------

ACTIONS: dict[str, Callable[[Any], Any]] = {
    "add": lambda queue: queue.add("n", 1),
    "add_bulk": lambda queue: queue.add_bulk([("n", n) for n in range(300)]),
    "get_job": lambda queue: queue.get_job("1"),
    "get_jobs": lambda queue: queue.get_jobs(),
    "get_job_counts": lambda queue: queue.get_job_counts(),
    "get_job_state": lambda queue: queue.get_job_state("1"),
    "get_job_logs": lambda queue: queue.get_job_logs("1"),
    "update_job_progress": lambda queue: queue.update_job_progress("1", 5),
    "add_job_log": lambda queue: queue.add_job_log("1", "line"),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("kind", ["port", "path"])
async def test_nothing_reachable_is_told_with_what_was_tried_and_what_to_do(
    face: Any, tmp_path: Path, kind: str, action: Any
) -> None:
    where: dict[str, Any] = {"host": "127.0.0.1", "port": free_port()} if kind == "port" else {"path": tmp_path / "s"}
    endpoint = f"127.0.0.1:{where['port']}" if kind == "port" else str(tmp_path / "s")
    queue = face.Queue("q", connection=Connection(**where, password="geheim", command_timeout=PATIENCE))
    with pytest.raises(RedisConnectionError) as caught:
        # Bounded, so that a wait without end fails here and not in the test runner.
        await asyncio.wait_for(done(action(queue)), 20)
    text = told(caught.value)
    assert f"could not connect to Redis at {endpoint} (" in text
    assert START in text
    assert "geheim" not in text
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, ToroError)


async def test_a_host_without_an_address_is_told(face: Any) -> None:
    queue = face.Queue("q", connection=Connection(host="no-such-host.invalid", command_timeout=PATIENCE))
    with pytest.raises(RedisConnectionError, match=r"could not connect to Redis at no-such-host\.invalid:6379 \("):
        await done(queue.add("n"))


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
async def test_a_port_that_never_answers_is_given_up(face: Any, action: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        connection = Connection(host="127.0.0.1", port=port, connect_timeout=PATIENCE, command_timeout=PATIENCE)
        with pytest.raises(RedisConnectionError, match=f"could not connect to Redis at 127.0.0.1:{port} .*timed out"):
            await asyncio.wait_for(done(action(face.Queue("q", connection=connection))), 20)


async def test_the_time_to_connect_counts_towards_the_time_of_the_operation() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connection = Connection(
            host="127.0.0.1", port=listener.getsockname()[1], connect_timeout=60_000, command_timeout=100
        )
        queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=connection)
        with pytest.raises(RedisConnectionError):
            await asyncio.wait_for(queue.add("n"), 5)


@pytest.fixture
def own_box() -> Iterator[RedisBox]:
    with RedisBox() as made:
        yield made


async def test_a_server_that_hangs_is_given_up_and_used_again_when_it_goes_on(face: Any, own_box: RedisBox) -> None:
    bounds: Any = {"connect_timeout": PATIENCE, "command_timeout": PATIENCE}
    queue = face.Queue("q", connection=Connection(own_box.url, **bounds))
    await done(queue.add("n", 1))
    own_box.pause()
    try:
        for action in ACTIONS.values():
            with pytest.raises(RedisConnectionError, match="timed out"):
                await asyncio.wait_for(done(action(queue)), 20)
    finally:
        own_box.unpause()
    await aeventually(lambda: own_box.client().ping())
    assert (await done(queue.add("n", 2))).data == 2


async def test_a_write_whose_answer_never_came_is_told_as_unknown_and_not_repeated(
    face: Any, own_box: RedisBox
) -> None:
    client = own_box.client()
    queue = face.Queue("q", connection=Connection(own_box.url, command_timeout=PATIENCE))
    job = await done(queue.add("n", 1))
    # So that the server knows the script: who must send it first has done nothing yet.
    await done(queue.add_job_log(job.id, "first"))
    own_box.pause()
    try:
        with pytest.raises(RedisConnectionError, match="it is not known whether it was done"):
            await done(queue.add_job_log(job.id, "line"))
    finally:
        own_box.unpause()
    await aeventually(lambda: client.llen(f"bull:q:{job.id}:logs") == 2)
    assert (await done(queue.get_job_logs(job.id))) == (["first", "line"], 2)


@pytest.mark.parametrize("word", ["SETINFO", "KILL", "SETNAME"])
@pytest.mark.parametrize("in_threads", [False, True])
async def test_a_waiting_connection_that_falls_silent_as_it_is_made_is_made_again(
    own_box: RedisBox, in_threads: bool, word: str
) -> None:
    ran = threading.Event()

    async def coroutine(_: Any) -> None:
        ran.set()

    processor: Any = (lambda _: ran.set()) if in_threads else coroutine
    async with LossyProxy(own_box.url) as proxy:
        proxy.lose_answer_to(word, cut=False)
        connection = Connection(proxy.url, connect_timeout=PATIENCE)
        # It looks by itself only after the test has failed.
        worker: toromq.Worker[Any, Any] = toromq.Worker("q", processor, connection=connection, drain_delay=600)
        async with worker, toromq.Queue("q", connection=own_box.url) as queue:
            await worker.wait_until_ready()
            await aeventually(lambda: proxy.lost)
            await queue.add("n")
            await aeventually(ran.is_set)


async def test_an_add_waits_for_a_server_that_comes_back_in_time(own_box: RedisBox) -> None:
    queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=Connection(own_box.url, command_timeout=60_000))
    await queue.add("n", 0)
    own_box.stop()
    adds = [asyncio.create_task(queue.add("n", n)) for n in range(20)]
    await asyncio.to_thread(own_box.start)
    jobs = await asyncio.gather(*adds)
    assert sorted(own_box.client().lrange("bull:q:wait", 0, -1)) == sorted(job.id for job in jobs)


async def test_an_add_from_a_thread_waits_for_a_server_that_comes_back_in_time(own_box: RedisBox) -> None:
    queue: sync.Queue[Any, Any] = sync.Queue("q", connection=Connection(own_box.url, command_timeout=60_000))
    own_box.stop()
    add = asyncio.create_task(asyncio.to_thread(queue.add, "n", 1))
    await asyncio.to_thread(own_box.start)
    job = await add
    assert own_box.client().lrange("bull:q:wait", 0, -1) == [job.id]
