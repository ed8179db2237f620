"""``toromq flow show`` as a person types it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import eventually
from toromq import cli
from toromq.sync import FlowJob, FlowProducer, Queue, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.redisbox import RedisBox


@pytest.fixture
def flow(redisbox: RedisBox, prefix: str) -> Iterator[FlowProducer]:
    with FlowProducer(connection=redisbox.url, prefix=prefix) as made:
        yield made


@pytest.fixture
def show(redisbox: RedisBox, prefix: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command here; gives its exit code, its lines, and what it complained of."""

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = cli.main(["flow", "show", *arguments, "--url", redisbox.url, "--prefix", prefix])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


def report(*children: FlowJob) -> FlowJob:
    return FlowJob("report", queue_name="reports", job_id="r", children=[*children])


def test_a_tree_is_drawn_with_states(flow: FlowProducer, show: Any, redisbox: RedisBox, prefix: str) -> None:
    nested = FlowJob("merge", queue_name="reports", job_id="m", children=[FlowJob("x", queue_name="pages", job_id="x")])
    pages = [
        FlowJob("good", queue_name="pages", job_id="a"),
        FlowJob("bad", queue_name="pages", job_id="b", data="no\nmore", ignore_dependency_on_failure=True),
        FlowJob("stuck", queue_name="pages", job_id="c", data="y" * 100),
        FlowJob("late", queue_name="other", job_id="d", delay=600_000),
    ]
    flow.add(report(*pages, nested))

    def work(job: Any) -> str:
        if job.name in ("bad", "stuck"):
            raise ValueError(job.data)
        return "ok"

    with (
        Queue("pages", connection=redisbox.url, prefix=prefix) as queue,
        Worker("pages", work, connection=redisbox.url, prefix=prefix),
    ):
        eventually(lambda: sum(queue.get_job_counts("completed", "failed").values()) == 4)
    code, lines, errors = show("reports", "r")
    assert (code, errors) == (0, "")
    assert lines == [
        "report r (reports) waiting-children",
        "├─ good a (pages) completed",
        "├─ late d (other) delayed",
        f"├─ stuck c (pages) failed: {'y' * 80}… [its parent waits on]",
        "├─ merge m (reports) waiting",
        "│  └─ x x (pages) completed",
        "└─ bad b (pages) failed: no [ignored by its parent]",
    ]


def test_a_parent_that_will_fail_says_so(flow: FlowProducer, show: Any, redisbox: RedisBox, prefix: str) -> None:
    flow.add(report(FlowJob("c", queue_name="pages", job_id="c", fail_parent_on_failure=True)))

    def work(_: Any) -> None:
        raise ValueError("no")

    with (
        Queue("reports", connection=redisbox.url, prefix=prefix) as queue,
        Worker("pages", work, connection=redisbox.url, prefix=prefix),
    ):
        eventually(lambda: queue.get_job_state("r") == "waiting")
    assert show("reports", "r")[1] == [
        f"report r (reports) waiting: will fail: child {prefix}:pages:c failed",
        "└─ c c (pages) failed: no [fails its parent]",
    ]


def test_what_is_left_out_is_counted(flow: FlowProducer, show: Any) -> None:
    nested = FlowJob("n", queue_name="q", job_id="n", children=[FlowJob("x", queue_name="q", job_id="x")])
    flow.add(report(nested, *(FlowJob("c", queue_name="q", job_id=f"c{n}") for n in range(4))))
    _, lines, _ = show("reports", "r", "--max-children", "1")
    assert [line for line in lines if line.startswith(("report", "└"))] == [
        "report r (reports) waiting-children",
        "└─ … 4 more: --max-children, or removed since",
    ]
    assert show("q", "n", "--depth", "1")[1] == [
        f"below {flow.prefix}:reports:r",
        "n n (q) waiting-children",
        "└─ … 1 more: --depth, or removed since",
    ]


def test_a_job_that_does_not_exist(show: Any, prefix: str) -> None:
    said = f"toromq: there is no job x in queue 'reports' under the prefix {prefix!r}\n"
    assert show("reports", "x") == (1, [], said)


@pytest.mark.parametrize(
    ("arguments", "said"), [(("a:b", "x"), "queue name: got 'a:b'"), (("q", "x", "--depth", "0"), "depth: got 0")]
)
def test_what_can_t_be_read_is_refused(show: Any, arguments: tuple[str, ...], said: str) -> None:
    code, lines, errors = show(*arguments)
    assert (code, lines) == (1, [])
    assert said in errors


def run(arguments: list[str], encoding: str = "utf-8", **environment: str) -> str:
    """What the command prints when its output is a file of some kind, in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-m", "toromq", "flow", "show", *arguments],
        capture_output=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    return told.stdout.decode(encoding)


def test_no_signs_where_the_terminal_knows_none(flow: FlowProducer, redisbox: RedisBox, prefix: str) -> None:
    flow.add(report(FlowJob("c", queue_name="q", job_id="c")))
    arguments = ["reports", "r", "--prefix", prefix]
    where = {"TOROMQ_URL": redisbox.url}
    assert run(arguments, PYTHONIOENCODING="ascii", **where).splitlines()[1] == "`- c c (q) waiting"
    assert run(arguments, PYTHONIOENCODING="utf-8", **where).splitlines()[1] == "└─ c c (q) waiting"


def test_states_have_colors_on_a_terminal(flow: FlowProducer, redisbox: RedisBox, prefix: str) -> None:
    flow.add(report())
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "toromq", "flow", "show", "reports", "r"]
    command += ["--url", redisbox.url, "--prefix", prefix]
    told = []
    for extra in ({}, {"NO_COLOR": "1"}):
        subprocess.run(command, check=True, stdout=slave, env={**environment, **extra})
        told.append(os.read(master, 1000).decode())
    os.close(master)
    os.close(slave)
    assert told == ["report r (reports) \x1b[33mwaiting\x1b[0m\r\n", "report r (reports) waiting\r\n"]


def test_what_others_wrote_stays_on_its_line(flow: FlowProducer, show: Any) -> None:
    flow.add(report(FlowJob("evil\x1b[31m\nnext", queue_name="q", job_id="c")))
    assert show("reports", "r")[1] == [
        "report r (reports) waiting-children",
        r"└─ evil\x1b[31m\nnext c (q) waiting",
    ]


def test_characters_that_the_terminal_has_not_are_spelled(flow: FlowProducer, redisbox: RedisBox, prefix: str) -> None:
    flow.add(report(FlowJob("früh 漢", queue_name="q", job_id="c")))
    arguments = ["reports", "r", "--prefix", prefix]
    for encoding, name in (("ascii", r"fr\xfch \u6f22"), ("latin-1", r"früh \u6f22"), ("utf-8", "früh 漢")):
        told = run(arguments, encoding, TOROMQ_URL=redisbox.url, PYTHONIOENCODING=encoding)
        assert f" {name} c (q) waiting" in told


def test_who_reads_no_further_gets_no_complaint(flow: FlowProducer, redisbox: RedisBox, prefix: str) -> None:
    # More than a pipe holds.
    flow.add(report(*(FlowJob("c" * 100, queue_name="q", job_id=f"c{n}") for n in range(2000))))
    command = [sys.executable, "-m", "toromq", "flow", "show", "reports", "r", "--max-children", "2000"]
    command += ["--url", redisbox.url, "--prefix", prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        assert told.stdout is not None
        assert told.stderr is not None
        assert told.stdout.readline() == b"report r (reports) waiting-children\n"
        told.stdout.close()
        assert told.stderr.read() == b""
    assert told.returncode == cli.EXIT_BROKEN_PIPE
