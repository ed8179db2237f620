"""A child process, as the worker sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from toromq._bridge import from_json, to_json
from toromq._cancellation import Cancellation
from toromq._sandbox.failure import carry_stack, packed_error, unpacked_error
from toromq._sandbox.frames import Channel, ChannelClosedError
from toromq._sandbox.target import Target
from toromq.errors import JobCancelledError, SandboxError, ToroError

# The child's search path comes first: what it is to import may be nowhere else, toromq included.
_PROGRAM: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from toromq._sandbox import child; child.main()"
)
# What a job in a child may ask the worker to do; the methods of SandboxJob.
CALLS: Final = frozenset(
    (
        "get_children_values", "get_dependencies_count", "get_ignored_children_failures", "get_state", "log",
        "move_to_delayed", "move_to_wait", "move_to_waiting_children", "update_data", "update_progress",
    )
)  # fmt: skip
# For how long a child that is to go may run what its program runs at the end.
_LAST_WORDS: Final = 5.0
# Far more than the stack of a crash, and less than a pipe holds.
_MOST_WORDS: Final = 1 << 15


class NotBegunError(Exception):
    """The child ended before it had begun with the job; `error` is what to fail it with."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Run:
    """A job in a child."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_begun = False
        self.has_ended = threading.Event()
        # The signal we sent to end it.
        self.signal = 0


class Child:
    """A process that runs one job at a time.

    It leads a process group: what Ctrl-C sends to a terminal's programs does not reach it, and what it started itself
    can be ended with it. Three ways lead to it beside the inherited output: the channel; a pipe that nothing is ever
    written to, of whose end the kernel tells the child by killing it; and a pipe for the stack of a crash.
    """

    def __init__(self, target: Target, types: tuple[str, str], kill_after: float) -> None:
        """Start one for a processor, and the types of its jobs.

        Raises:
            OSError: it could not be started.
        """
        self._kill_after = kill_after
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self.runs = 0
        # Whether it runs no job any more. While it runs one this is so, too: only what it says at the end clears it.
        self._is_spent = False
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            channel, channel_end = socket.socketpair()
            ours.callback(channel.close)
            theirs.callback(channel_end.close)
            life_end, self._life = os.pipe()
            ours.callback(os.close, self._life)
            theirs.callback(os.close, life_end)
            self._words, words_end = os.pipe()
            ours.callback(os.close, self._words)
            theirs.callback(os.close, words_end)
            for end in (self._words, words_end):
                os.set_blocking(end, False)
            ends = (channel_end.fileno(), life_end, words_end)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                    # Else the few modules of the program would be looked for in the current folder first.
                    "-P",
                    "-c",
                    _PROGRAM,
                    json.dumps([entry for entry in sys.path if isinstance(entry, str)]),
                    json.dumps(ends),
                    json.dumps(target),
                    json.dumps(types),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=ends,
                process_group=0,
            )
            self._channel = Channel(channel)
            ours.pop_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_usable(self) -> bool:
        """Whether it lives and can run another job."""
        return not self._is_spent and not self._channel.is_broken and self._process.poll() is None

    def run(self, job: Any) -> Any:
        """Run a job in it and give what the processor returned.

        Raises:
            NotBegunError: it had ended before the job began.
            SandboxError: the processor raised, or the process ended.
            JobCancelledError: it was told to end, and did.
            JobControl, ToroError: as raised by the processor.
        """
        self.runs += 1
        self._is_spent = True
        run = self._run = _Run(self.runs)

        def stop(reason: str) -> None:
            threading.Thread(target=self._stop, args=(run, reason), name="toromq-sandbox-stop", daemon=True).start()

        stored = [job.id, job.token, job.attempts_started, job.attempts_made]
        # Each byte as the letter of its number, so that whatever is stored arrives as it is.
        fields = {name: value.decode("latin-1") for name, value in job._fields.items()}
        cancellation: Cancellation = job._cancellation
        cancellation.add_callback(stop)
        try:
            # If it is gone already, what it said before is still to be read.
            with contextlib.suppress(ChannelClosedError):
                queue = [job.prefix, job.queue_name]
                trace = None if job._span is None else job._span.context()
                self._channel.send({"run": run.number, "queue": queue, "job": [*stored, fields], "trace": trace})
            return self._serve(run, job, cancellation)
        finally:
            cancellation.remove_callback(stop)
            with self._lock:
                self._run = None
                run.has_ended.set()
                # A signal reaches it when it is done, too.
                self._is_spent |= run.signal != 0

    def _serve(self, run: _Run, job: Any, cancellation: Cancellation) -> Any:
        while (frame := self._channel.receive()) is not None:
            said = frame["is"]
            if said == "begun":
                run.has_begun = True
            elif said == "call":
                with contextlib.suppress(ChannelClosedError):
                    self._channel.send(_answer(job, frame))
            elif said == "done":
                self._is_spent = False
                decode = job._queue._result_type.decode
                return decode(frame["value"].encode(), "returnvalue")
            else:
                self._is_spent = said == "unusable"
                raise unpacked_error(frame["error"], with_stack=True)
        error = self._end_of(run, cancellation.reason)
        if not run.has_begun and not run.signal:
            raise NotBegunError(error)
        raise error

    def _end_of(self, run: _Run, cancelled: str | None) -> Exception:
        """Why the process ended, once it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS)
        if self._process.poll() is None:
            # It has closed what it did not open.
            self.kill()
            self._process.wait()
        code = self._process.returncode
        how = f"was ended by {_name_of(-code)}" if code < 0 else f"ended with exit code {code}"
        how = f"the child process {how} {'while it ran' if run.has_begun else 'before it began'} the job"
        error: Exception = SandboxError(how)
        if cancelled is not None and run.signal and code == -run.signal:
            error = JobCancelledError(cancelled)
        kind = type(error)
        more = [how] if str(error) != how else []
        carry_stack(error, "\n".join([f"{kind.__module__}.{kind.__qualname__}: {error}", *more, self._last_words()]))
        return error

    def _last_words(self) -> str:
        """The stack that it left, if it was ended by a signal."""
        try:
            said = os.read(self._words, _MOST_WORDS)
        except BlockingIOError:
            # What it started itself may hold the other end open.
            return ""
        return said.decode("utf-8", "replace")

    def _stop(self, run: _Run, reason: str) -> None:
        """Ask a run to end, then insist."""
        deadline = time.monotonic() + self._kill_after
        with contextlib.suppress(ChannelClosedError, TimeoutError):
            self._channel.send({"run": run.number, "cancel": reason}, self._kill_after)
        if not run.has_ended.wait(max(0.0, deadline - time.monotonic())):
            self._signal(run, signal.SIGTERM)
            if not run.has_ended.wait(self._kill_after):
                self._signal(run, signal.SIGKILL)

    def _signal(self, run: _Run, number: signal.Signals) -> None:
        # Under the lock, for it must not reach a child that has gone on to another job.
        with self._lock:
            if self._run is run and self._process.poll() is None:
                run.signal = number
                _signal_group(self._process.pid, number)

    def kill(self) -> None:
        """End it now, whatever it does; it must be reaped all the same."""
        with self._lock:
            if self._process.poll() is None:
                if self._run is not None:
                    self._run.signal = signal.SIGKILL
                _signal_group(self._process.pid, signal.SIGKILL)

    def leave(self) -> None:
        """Tell it that there are no more jobs."""
        self._is_spent = True
        self._channel.close()

    def reap(self, seconds: float) -> None:
        """Wait for its end, make it end after that time, and take back all that it used."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()
        self._process.wait()
        # What it started itself and left behind. Nobody else can have its number yet.
        _signal_group(self._process.pid, signal.SIGKILL)
        os.close(self._life)
        os.close(self._words)

    def forget(self) -> None:
        """Leave it to the process that started it: this one is a fork of that."""
        self._channel.forget()
        os.close(self._life)
        os.close(self._words)
        # Nothing is to be said of it when it goes.
        self._process.returncode = 0


def end(children: Iterable[Child]) -> None:
    """End children that run no job, all at once, and wait until they are gone."""
    children = list(children)
    for child in children:
        child.leave()
    deadline = time.monotonic() + _LAST_WORDS
    for child in children:
        child.reap(max(0.0, deadline - time.monotonic()))


def _answer(job: Any, frame: dict[str, Any]) -> dict[str, Any]:
    """Do what a job in the child asks for."""
    answer = {"reply": frame["call"]}
    try:
        if frame["method"] not in CALLS:
            raise ToroError(f"a job in a child process has no {frame['method']!r}")
        arguments, options = from_json(frame["arguments"].encode())
        value = getattr(job, frame["method"])(*arguments, **options)
        return {**answer, "value": to_json(value, frame["method"]).decode()}
    except Exception as error:
        return {**answer, "error": packed_error(error)}


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    # Gone, or, as some systems say it, all that is left are zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
