"""The demo: its figures are true, every file is accounted for, and Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.support.eventually import eventually
from tests.support.redisbox import free_port
from toromq import server

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

_DEMO = Path(__file__).parents[2] / "examples" / "read_the_library.py"
_BAD = {
    "bad/python_2.py": b"print 'hello'\n",
    "bad/no_such_encoding.py": b"# coding: uft-8\n",
    "bad/null_byte.py": b"x = 1\0\n",
}


@dataclass
class Library:
    """A folder of source files whose content is known without parsing it."""

    folder: Path
    good: dict[str, dict[str, int]]

    def total(self, what: str) -> int:
        return sum(counts[what] for counts in self.good.values())

    def retries(self) -> int:
        return sum(map(_is_shaky, [*self.good, *_BAD]))


def _is_shaky(path: str) -> bool:
    return zlib.crc32(path.encode()) % 50 == 0


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Files that can be parsed, two or more of them on the shaky part of the drive, and three that can't."""
    folder = tmp_path / "library"
    names = [f"pkg_{n % 3}/module_{n}.py" for n in range(38)]
    names += [path for n in range(38, 1000) if _is_shaky(path := f"pkg_0/module_{n}.py")][:2]
    good = {}
    for n, path in enumerate(names):
        counts = {"imports": n % 4, "functions": n % 5 + n % 2, "classes": n % 3, "comments": n % 7}
        text = "import os\n" * (n % 4) + "def f(): pass\n" * (n % 5) + "async def g(): pass\n" * (n % 2)
        text += "class C: '# not a comment'\n" * (n % 3) + "# a comment\n" * (n % 7)
        # A large one now and then; it has a priority.
        text += "x = 1\n" * (10_000 if n % 20 == 0 else n)
        good[path] = counts | {"lines": text.count("\n")}
        _write(folder / path, text.replace("\n", "\r\n" if n % 2 else "\n").encode())
    _write(folder / "pkg_0/latin_1.py", "# coding: latin-1\nname = 'é'\n".encode("latin-1"))
    good["pkg_0/latin_1.py"] = {"imports": 0, "functions": 0, "classes": 0, "comments": 1, "lines": 2}
    for path, content in _BAD.items():
        _write(folder / path, content)
    _write(folder / "site-packages/other.py", b"def not_of_the_library(): pass\n")
    _write(folder / "notes.txt", b"not Python\n")
    return Library(folder, good)


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A folder of more work than any test waits for."""
    folder = tmp_path / "endless"
    folder.mkdir()
    _write(tmp_path / "long.py", b"x = [1, 2, 3]\n" * 3000)
    for n in range(2000):
        (folder / f"{n}.py").symlink_to(tmp_path / "long.py")
    return folder


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def command(redisbox: RedisBox, prefix: str) -> list[str]:
    """The demo's command line, without a folder."""
    return [sys.executable, str(_DEMO), "--connection", redisbox.unix_url, "--prefix", prefix, "--workers", "2"]


def _run(command: list[str], folder: Path, *more: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "--folder", str(folder), *more], capture_output=True, text=True, timeout=50, check=False, cwd=cwd
    )


def _table(output: str) -> dict[str, float]:
    rows = re.findall(r"^  (\S+) +([\d,.]+)$", output.partition("\nResults\n")[2].partition("\n\n")[0], re.MULTILINE)
    return {what: float(figure.replace(",", "")) for what, figure in rows}


def test_the_table_tells_what_is_in_the_files(command: list[str], library: Library) -> None:
    done = _run(command, library.folder)
    assert (done.returncode, done.stderr) == (0, "")
    table = _table(done.stdout)
    expected = {what: library.total(what) for what in ("lines", "functions", "classes", "imports", "comments")}
    expected |= {"parsed": len(library.good), "failed": len(_BAD), "retries": library.retries()}
    assert expected["retries"] >= 2
    assert {what: table[what] for what in expected} == expected
    assert table["reader-1"] + table.get("reader-2", 0) == len(library.good) + len(_BAD)
    assert f"{len(library.good)} parsed + {len(_BAD)} failed = {len(library.good) + len(_BAD)} files" in done.stdout
    longest = sorted((counts["lines"] for counts in library.good.values()), reverse=True)[:5]
    shown = re.findall(r"^ +([\d,]+)  (\S+)$", done.stdout.partition("The longest files")[2], re.MULTILINE)
    assert [int(lines.replace(",", "")) for lines, _ in shown] == longest
    assert all(library.good[path]["lines"] == int(lines.replace(",", "")) for lines, path in shown)


def test_each_file_that_failed_is_named_with_its_reason(command: list[str], library: Library) -> None:
    done = _run(command, library.folder)
    named = dict(re.findall(r"^  (bad/\S+): (\w+: .+)$", done.stdout, re.MULTILINE))
    assert named.keys() == _BAD.keys()
    assert "print" in named["bad/python_2.py"]
    assert "uft-8" in named["bad/no_such_encoding.py"]
    assert "null bytes" in named["bad/null_byte.py"]


def test_a_run_leaves_no_results_behind(
    command: list[str], library: Library, redis: redis_py.Redis, prefix: str
) -> None:
    done = _run(command, library.folder)
    found = re.search(r"^queue (\S+) at ", done.stdout, re.MULTILINE)
    assert found is not None
    queue = f"{prefix}:{found[1]}"
    (last,) = redis.zrange(f"{queue}:completed", 0, -1)
    assert redis.hget(f"{queue}:{last!s}", "name") == "sweep"
    assert redis.zcard(f"{queue}:failed") == len(_BAD)


def test_without_a_connection_it_brings_its_own_server_and_ends_it(library: Library) -> None:
    # Not tmp_path, whose length depends on the test's name: a unix socket has room for about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="toromq-") as here:
        try:
            done = _run([sys.executable, str(_DEMO)], library.folder, "--limit", "5", cwd=here)
            assert done.returncode == 0
            assert not server.status(Path(here) / ".toromq").running
            assert (Path(here) / ".toromq" / "server.log").exists()
        finally:
            server.stop(Path(here) / ".toromq")


def test_progress_is_told_in_lines_where_there_is_no_terminal(command: list[str], library: Library) -> None:
    done = _run(command, library.folder, "--limit", "10")
    assert "\x1b" not in done.stdout
    progress = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert re.fullmatch(
        r"\[#{30}\] 10/10 files +\d+ jobs/s +[\d.]+ s  waiting 0  prioritized 0  active 0  delayed 0  "
        r"completed \d+  failed \d+  retries \d+",
        progress[-1],
    )
    assert _table(done.stdout)["parsed"] + _table(done.stdout)["failed"] == 10


def test_progress_is_drawn_in_place_on_a_terminal(command: list[str], library: Library) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*command, "--folder", str(library.folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        output = b"".join(_chunks(ours))
        os.close(ours)
    assert process.returncode == 0
    total = len(library.good) + len(_BAD)
    before, *drawn = output.decode().replace("\r", "").split("\x1b[2A")
    # The first one goes up over two empty lines.
    assert before.endswith("tried again.\n\n\n\n")
    assert all(re.match(r"\x1b\[2K\[[#.]{30}\] .*\n\x1b\[2Kwaiting .*\n", each) for each in drawn)
    assert f"] {total}/{total} files" in drawn[-1]
    assert all(each.count("\n") == 2 for each in drawn[:-1])


def _chunks(fd: int) -> Iterator[bytes]:
    # Linux ends a terminal that nobody writes to any more with an error, others with nothing.
    with contextlib.suppress(OSError):
        while chunk := os.read(fd, 65536):
            yield chunk


@pytest.mark.parametrize("whole_group", [False, True], ids=["only the demo", "the terminal's whole group"])
def test_ctrl_c_ends_it_and_the_next_run_is_not_disturbed(
    command: list[str], library: Library, endless: Path, whole_group: bool
) -> None:
    with subprocess.Popen(
        [*command, "--folder", str(endless)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(line.startswith("[") for line in process.stdout)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        output, errors = process.stdout.read(), process.stderr.read()
    assert (process.returncode, errors) == (130, "")
    assert "Stopped." in output
    eventually(lambda: not _group_lives(process.pid), message="no process of the demo is left")
    done = _run(command, library.folder)
    assert done.returncode == 0
    assert _table(done.stdout)["parsed"] == len(library.good)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_files_is_an_error(command: list[str], tmp_path: Path) -> None:
    done = _run(command, tmp_path)
    assert (done.returncode, done.stderr) == (1, f"no .py files in {tmp_path}\n")


def test_a_server_that_is_away_is_an_error(library: Library) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = _run([sys.executable, str(_DEMO), "--connection", f"redis://{address}"], library.folder)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert address in done.stderr


def test_workers_end_with_a_demo_that_is_killed(command: list[str], endless: Path) -> None:
    with subprocess.Popen(
        [*command, "--folder", str(endless)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("[") for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    eventually(lambda: not _group_lives(process.pid), message="no process of the demo is left")


def test_a_worker_that_is_killed_loses_no_file(command: list[str], endless: Path) -> None:
    with subprocess.Popen(
        [*command, "--folder", str(endless), "--limit", "150"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("[") for line in process.stdout)
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
        )
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        output = process.stdout.read()
    assert process.returncode == 0
    assert "150 parsed + 0 failed = 150 files" in output


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The demo as a module."""
    spec = importlib.util.spec_from_file_location("read_the_library", _DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("completed", "failed", "whole"),
    [
        (["a.py"], [("b.py", "no luck")], True),
        (["a.py", "b.py"], [], True),
        (["a.py"], [], False),
        (["a.py", "b.py"], [("b.py", "no luck")], False),
        (["a.py"], [("b.py", None)], False),
        (["a.py", "c.py"], [], False),
    ],
    ids=["one failed", "none failed", "one is missing", "one ended twice", "one without a reason", "another one"],
)
def test_only_a_whole_account_is_a_success(
    demo: ModuleType, completed: list[str], failed: list[tuple[str, str | None]], whole: bool
) -> None:
    def job(path: str, reason: str | None) -> SimpleNamespace:
        return SimpleNamespace(
            data={"folder": "", "path": path},
            returnvalue=dict.fromkeys(demo.COUNTED, 1),
            failed_reason=reason,
            attempts_made=1,
            processed_by="reader-1",
            timestamp=1,
            finished_on=2,
        )

    jobs = [job(path, None) for path in completed], [job(path, reason) for path, reason in failed]
    assert demo.report([("", "a.py"), ("", "b.py")], *jobs) is whole
