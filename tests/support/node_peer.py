"""A Node process with BullMQ in it, driven from tests over a line protocol.

The process runs ``tests/interop/peer/peer.mjs``; that file lists the commands. Its packages are installed once per
machine into the user's cache folder, never into the source tree.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from tests.support.not_run import not_run

PEER_FOLDER: Final = Path(__file__).resolve().parent.parent / "interop" / "peer"

_OLDEST_NODE: Final = 20
_INSTALL_TIMEOUT_S: Final = 300.0
_MANIFESTS: Final = ("package.json", "package-lock.json", ".npmrc")

#: ``peer.command("call", args=[UNDEFINED])`` and its kind: values that JSON cannot spell.
UNDEFINED: Final = {"$undefined": True}
NAN: Final = {"$number": "NaN"}


class NodeUnavailableError(Exception):
    """This machine cannot run the Node side; the text says why."""


class NodePeerError(Exception):
    """A command failed inside the Node process.

    Attributes:
        name: The class name of the JavaScript error.
        message: Its message.
        code: Its ``code`` member, for BullMQ a negative reply code, or None.
    """

    def __init__(self, name: str, message: str, code: int | str | None) -> None:
        super().__init__(f"{name}: {message}" + (f" (code {code})" if code is not None else ""))
        self.name = name
        self.message = message
        self.code = code


class NodePeerDiedError(Exception):
    """The Node process ended while somebody waited for it."""


# -- Installation ------------------------------------------------------------------------------------------------------


def require_node() -> Path:
    """Returns the installed peer script, or says loudly that the calling test did not run.

    See ``not_run`` for what happens then.
    """
    try:
        return install()
    except NodeUnavailableError as error:
        not_run("interop", str(error))


def install() -> Path:
    """Installs the peer's packages once per machine and version, and returns the path of the script to run.

    Raises:
        NodeUnavailableError: There is no usable Node or npm, or the installation failed.
    """
    _check_node()
    digest = hashlib.sha256(b"\0".join((PEER_FOLDER / name).read_bytes() for name in _MANIFESTS)).hexdigest()[:16]
    folder = _cache_folder() / f"interop-{digest}"
    with _machine_lock(folder.with_suffix(".lock")):
        done = folder / ".installed"
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name in _MANIFESTS:
                shutil.copyfile(PEER_FOLDER / name, folder / name)
            _npm_ci(folder)
            done.touch()
        # Node resolves packages from where the script lies. The name carries the content, so that checkouts with
        # different scripts can share one installation.
        source = (PEER_FOLDER / "peer.mjs").read_bytes()
        script = folder / f"peer-{hashlib.sha256(source).hexdigest()[:16]}.mjs"
        if not script.exists():
            partial = script.with_suffix(".partial")
            partial.write_bytes(source)
            partial.replace(script)
    return script


def _check_node() -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NodeUnavailableError(f"there is no {program} on the PATH")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = version.removeprefix("v").split(".")[0]
    if not major.isdigit() or int(major) < _OLDEST_NODE:
        raise NodeUnavailableError(f"Node {_OLDEST_NODE} or newer is needed, found {version or 'nothing'}")


def _cache_folder() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME", "")
    candidates = [Path(configured)] if os.path.isabs(configured) else []
    with contextlib.suppress(RuntimeError):
        candidates.append(Path.home() / ".cache")
    # The owner's number keeps two users of one machine out of each other's folders.
    candidates.append(Path(tempfile.gettempdir()) / f"toromq-{os.getuid()}")
    for candidate in candidates:
        folder = candidate / "toromq"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise NodeUnavailableError("no cache folder is writable")


@contextlib.contextmanager
def _machine_lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _npm_ci(folder: Path) -> None:
    try:
        result = subprocess.run(
            ["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NodeUnavailableError(f"npm ci did not finish within {_INSTALL_TIMEOUT_S:.0f} s") from error
    if result.returncode != 0:
        raise NodeUnavailableError(f"npm ci failed: {result.stderr.strip()[-500:]}")


# -- The process -------------------------------------------------------------------------------------------------------

_Predicate = Callable[[dict[str, Any]], bool]


class _Waiter:
    """A future of some event loop that the reading thread resolves."""

    def __init__(self, predicate: _Predicate | None = None) -> None:
        self.predicate = predicate
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def resolve(self, value: Any) -> None:
        self._tell(lambda: self.future.set_result(value))

    def reject(self, error: Exception) -> None:
        self._tell(lambda: self.future.set_exception(error))

    def _tell(self, step: Callable[[], None]) -> None:
        def run() -> None:
            if not self.future.done():
                step()

        # The loop of a test that has already ended may be closed; nobody waits there any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(run)


class NodePeer:
    """One Node process.

    A thread reads what the process says, so a peer is bound to no event loop and one process can serve many tests;
    :meth:`reset` closes everything a test created. Notifications are kept in the order of arrival: a wait finds those
    that came before it.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._names = itertools.count(1)
        self._guard = threading.Lock()
        self._answers: dict[int, _Waiter] = {}
        self._waiters: list[_Waiter] = []
        self._ended: str | None = None
        self._errors: deque[str] = deque(maxlen=200)
        self.notifications: list[dict[str, Any]] = []
        self._threads = [
            threading.Thread(target=self._read_answers, name="node-peer-stdout", daemon=True),
            threading.Thread(target=self._read_errors, name="node-peer-stderr", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    async def start(cls, redis: str, prefix: str = "bull") -> NodePeer:
        """Starts a process whose objects will use one server and one prefix.

        Args:
            redis: ``redis://host:port/db``, ``unix:///path``, or the path of a unix socket.
            prefix: The key prefix.
        """
        script = await asyncio.to_thread(install)
        process = subprocess.Popen(
            ["node", "--enable-source-maps", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogatepass",
            bufsize=1,
            cwd=script.parent,
        )
        peer = cls(process)
        try:
            await peer.command("hello")
            await peer.use(redis, prefix)
        except BaseException:
            peer.kill()
            raise
        return peer

    @property
    def pid(self) -> int:
        """The process id of Node."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    async def use(self, redis: str, prefix: str) -> None:
        """Sets server and prefix of everything created from now on."""
        await self.command("defaults", connection=connection_options(redis), prefix=prefix)

    async def command(self, cmd: str, *, timeout: float = 30.0, **fields: Any) -> Any:
        """Sends one command and returns its answer.

        Raises:
            NodePeerError: The command failed in Node.
            NodePeerDiedError: The process ended first.
            TimeoutError: No answer came in time.
        """
        waiter = _Waiter()
        number = next(self._ids)
        with self._guard:
            if self._ended is not None:
                raise NodePeerDiedError(self._ended)
            self._answers[number] = waiter
        stdin = self._pipe(self._process.stdin)
        try:
            stdin.write(json.dumps({"id": number, "cmd": cmd, **fields}) + "\n")
            stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise NodePeerDiedError(f"the process is gone: {error}") from error
        try:
            return await asyncio.wait_for(waiter.future, timeout)
        except TimeoutError:
            raise TimeoutError(f"no answer to {cmd} {fields} within {timeout} s;{self._recent_errors()}") from None
        finally:
            with self._guard:
                self._answers.pop(number, None)

    async def call(self, handle: str, method: str, /, *args: Any, state: bool = False, timeout: float = 30.0) -> Any:
        """Calls any method of a created object; jobs in the answer carry their state when asked for."""
        return await self.command("call", handle=handle, method=method, args=list(args), state=state, timeout=timeout)

    async def job(
        self, handle: str, job_id: str, method: str, /, *args: Any, held: bool = False, unknown: bool = False
    ) -> Any:
        """Calls a method of a job, found by id, or held by a worker since :meth:`next_job`.

        With ``unknown`` there need not be such a job any more.
        """
        fields: dict[str, Any] = {"jobId": job_id, "held": held, "unknown": unknown}
        return await self.command("job", handle=handle, method=method, args=list(args), **fields)

    async def next_job(self, handle: str, token: str, *, block: bool = True) -> dict[str, Any] | None:
        """Lets a worker without processor fetch one job."""
        answer = await self.command("next_job", handle=handle, token=token, block=block)
        return None if answer is None else dict(answer)

    async def queue(self, name: str, /, **options: Any) -> str:
        """Creates a queue and returns its handle."""
        return await self._create("Queue", name, options)

    async def queue_events(self, name: str, /, **options: Any) -> str:
        """Creates an event reader and returns its handle.

        It starts at the beginning of the stream, so that nothing can be missed, unless ``lastEventId`` says otherwise.
        """
        return await self._create("QueueEvents", name, {"lastEventId": "0-0", **options})

    async def flow_producer(self, **options: Any) -> str:
        """Creates a flow producer and returns its handle."""
        return await self._create("FlowProducer", "", options)

    async def worker(
        self,
        name: str,
        processor: dict[str, Any] | str | None = None,
        /,
        *,
        backoff_delays: list[int] | None = None,
        **options: Any,
    ) -> str:
        """Creates and starts a worker and returns its handle.

        Args:
            name: The queue.
            processor: A scripted processor by name, or with settings: ``{"name": "fail", "message": "x"}``. None makes
                a worker for manual fetching.
            backoff_delays: The answers of a custom backoff strategy, one per attempt.
            **options: The worker's own options in Node's spelling.
        """
        fields: dict[str, Any] = {}
        if processor is not None:
            fields["processor"] = {"name": processor} if isinstance(processor, str) else processor
        if backoff_delays is not None:
            fields["backoff_delays"] = backoff_delays
        return await self._create("Worker", name, options, **fields)

    async def open(self, handle: str, job_id: str, value: Any = None, *, error: str | None = None) -> None:
        """Opens the gate of a job: its ``gate`` processor returns the value, or throws the error."""
        await self.command("open", handle=handle, jobId=job_id, value=value, error=error)

    async def wait_until_finished(self, queue: str, job_id: str, events: str, ttl: int = 10_000) -> dict[str, Any]:
        """Node's ``waitUntilFinished``: ``{"value": ..., "undefined": bool}``."""
        return dict(await self.command("wait_until_finished", handle=queue, jobId=job_id, events=events, ttl=ttl))

    async def close_handle(self, handle: str, *, force: bool = False) -> None:
        """Closes one created object; a worker waits for its jobs unless forced."""
        await self.command("close", handle=handle, force=force)

    async def reset(self) -> None:
        """Closes everything created so far and forgets all notifications."""
        await self.command("reset")
        self.notifications.clear()

    def mark(self) -> int:
        """A position in the notifications; waits given it as ``since`` ignore what came before."""
        return len(self.notifications)

    def events(self, event: str, *, since: int = 0, **match: Any) -> list[dict[str, Any]]:
        """All notifications so far of one kind whose members equal the given ones."""
        wanted = _matcher(event, match)
        return [notification for notification in self.notifications[since:] if wanted(notification)]

    async def wait_event(self, event: str, *, since: int = 0, timeout: float = 10.0, **match: Any) -> dict[str, Any]:
        """Waits for the first notification of one kind whose members equal the given ones."""
        return (await self.wait_events(event, 1, since=since, timeout=timeout, **match))[0]

    async def wait_events(
        self, event: str, count: int, *, since: int = 0, timeout: float = 10.0, **match: Any
    ) -> list[dict[str, Any]]:
        """Waits until ``count`` notifications match, and returns the first ``count`` of them.

        Raises:
            TimeoutError: Not enough came in time; the text shows what did come.
            NodePeerDiedError: The process ended first.
        """
        wanted = _matcher(event, match)
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            with self._guard:
                found = [item for item in self.notifications[since:] if wanted(item)]
                if len(found) >= count:
                    return found[:count]
                if self._ended is not None:
                    raise NodePeerDiedError(self._ended)
                waiter = _Waiter(wanted)
                self._waiters.append(waiter)
            try:
                await asyncio.wait_for(waiter.future, deadline - asyncio.get_running_loop().time())
            except TimeoutError:
                recent = "".join(f"\n  {item}" for item in self.notifications[since:][-20:])
                raise TimeoutError(
                    f"{len(found)} of {count} notifications {event} {match} within {timeout} s; the last ones:"
                    f"{recent or ' none'}{self._recent_errors()}"
                ) from None
            finally:
                with self._guard:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)

    def kill(self) -> None:
        """Ends the process at once, as a crash would: no lock is released, nothing is closed."""
        if self.running:
            self._process.send_signal(signal.SIGKILL)
        self._collect()

    async def close(self) -> None:
        """Closes everything inside and ends the process."""
        if self.running:
            with contextlib.suppress(NodePeerDiedError, TimeoutError):
                await self.command("quit", timeout=10.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 5.0)
        self.kill()

    # -- Inside --

    async def _create(self, kind: str, name: str, options: dict[str, Any], **fields: Any) -> str:
        handle = f"{kind}-{next(self._names)}"
        await self.command("create", kind=kind, handle=handle, name=name, options=options, **fields)
        return handle

    def _collect(self) -> None:
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=5.0)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_answers(self) -> None:
        stdout = self._pipe(self._process.stdout)
        for line in stdout:
            self._take(json.loads(line))
        with self._guard:
            self._ended = f"the Node process ended;{self._recent_errors()}"
            left = [*self._answers.values(), *self._waiters]
            self._waiters.clear()
        for waiter in left:
            waiter.reject(NodePeerDiedError(self._ended))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" not in message:
            with self._guard:
                self.notifications.append(message)
                woken = [item for item in self._waiters if item.predicate is not None and item.predicate(message)]
            for waiter in woken:
                waiter.resolve(message)
            return
        with self._guard:
            answer = self._answers.pop(message["id"], None)
        if answer is None:
            return
        if "error" in message:
            error = message["error"]
            answer.reject(NodePeerError(error["name"], error["message"], error["code"]))
        else:
            answer.resolve(message["ok"])

    def _read_errors(self) -> None:
        for line in self._pipe(self._process.stderr):
            self._errors.append(line)

    def _recent_errors(self) -> str:
        text = "".join(self._errors).strip()
        return f" it said:\n{text}" if text else " it said nothing"

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            _unreachable("the process was started without pipes")
        return pipe


def connection_options(redis: str) -> dict[str, Any]:
    """Node's connection options for a URL or a unix socket path."""
    if redis.startswith("unix://"):
        return {"path": redis.removeprefix("unix://").split("?")[0]}
    if redis.startswith("/"):
        return {"path": redis}
    if redis.startswith("redis://"):
        address, _, database = redis.removeprefix("redis://").partition("/")
        host, _, port = address.rpartition(":")
        return {"host": host, "port": int(port), "db": int(database or 0)}
    raise ValueError(f"not a server this peer can reach: {redis}")


def _matcher(event: str, match: dict[str, Any]) -> _Predicate:
    def matches(notification: dict[str, Any]) -> bool:
        return notification["event"] == event and all(
            key in notification and notification[key] == value for key, value in match.items()
        )

    return matches


def _unreachable(text: str) -> NoReturn:
    raise AssertionError(text)
