"""Read Python's standard library and what is installed beside it, one job per file, on every core.

    python examples/read_the_library.py

It needs no set-up: the server of ./.toromq starts with it and ends with it. What to look for:

- `read_file` is the whole processor: a plain function. Several processes run it, each with a `Worker` of its own.
- Files that cannot be parsed fail at once (`UnrecoverableError`). The library has some: tests of bad syntax, Python 2.
- Files whose drive timed out are tried again after half a second, then one second. The drive is make-believe: it fails
  the first attempt at 1 file in 50, always the same ones.
- Large files have priority 1. Jobs without one run first, then 1, then 2: no small file waits behind a large one.
- Kill a worker process while it runs (kill -9): another one takes over its jobs when their locks have run out.
- Parsing takes nearly all of the time, so jobs/s is the speed of the parser and not of the queue.
"""

import argparse
import ast
import io
import multiprocessing
import os
import signal
import sys
import sysconfig
import time
import tokenize
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from toromq import Backoff, JobOptions, RedisConnectionError, UnrecoverableError
from toromq.sync import Job, Queue, Worker

LARGE = 50_000  # bytes
FAULTS = 50  # the drive fails at 1 file in so many
COUNTED = ("lines", "functions", "classes", "imports", "comments")
STATES = ("waiting", "prioritized", "active", "delayed", "completed", "failed")
READ_NEXT = """Read next
  README.md                      what toromq does, and how to begin
  examples/read_the_library.py   this program, in two minutes
  ARCHITECTURE.md                how it works inside"""
SPAWN = multiprocessing.get_context("spawn")
LIVE = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def read_from_drive(folder: str, path: str, attempts_made: int) -> bytes:
    """A file's content, from a network drive that is shaky on purpose."""
    if attempts_made == 0 and zlib.crc32(path.encode()) % FAULTS == 0:
        raise TimeoutError("the drive did not answer")
    return Path(folder, path).read_bytes()


def read_file(job: Job[Any, Any]) -> dict[str, int]:
    """The processor: parse a file and count what is in it. What it returns is the job's result."""
    if job.name == "sweep":
        return {}
    source = read_from_drive(**job.data, attempts_made=job.attempts_made)
    try:
        nodes = Counter(type(node) for node in ast.walk(ast.parse(source, job.data["path"])))
        tokens = Counter(token.type for token in tokenize.tokenize(io.BytesIO(source).readline))
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        raise UnrecoverableError(f"{type(error).__name__}: {error}") from error  # it would be as wrong the next time
    return {
        "lines": len(source.splitlines()),
        "functions": nodes[ast.FunctionDef] + nodes[ast.AsyncFunctionDef],
        "classes": nodes[ast.ClassDef],
        "imports": nodes[ast.Import] + nodes[ast.ImportFrom],
        "comments": tokens[tokenize.COMMENT],
    }


def work(queue_name: str, name: str, where: dict[str, Any], retries: Any, end: Any) -> None:
    """What each worker process does until the demo closes its side of the pipe `end`, or dies."""
    warnings.simplefilter("ignore")  # the library's tests hold code that the parser warns of
    # Two at once: one is parsed while the other is fetched, or its result is on its way.
    options: dict[str, Any] = {"name": name, "concurrency": 2, "lock_duration": 5000, "stalled_interval": 5000}
    worker: Worker[Any, Any] = Worker(queue_name, read_file, **options, **where)

    def count(_: Job[Any, Any], error: BaseException) -> None:
        if not isinstance(error, UnrecoverableError):
            with retries.get_lock():
                retries.value += 1

    worker.on("failed", count)
    with worker:
        end.poll(None)  # leaving the block waits for the jobs in flight


def watch(queue: Queue[Any, Any], total: int, workers: list[Any], retries: Any) -> None:
    """Show how it goes until every job has ended: in place on a terminal, else a line a second."""
    started = last_look = time.monotonic()
    last_ended = 0
    print("\n" * 2 * LIVE)
    while True:
        time.sleep(0.25 if LIVE else 1)
        counts = queue.get_job_counts()
        ended, now = counts["completed"] + counts["failed"], time.monotonic()
        rate = (ended - last_ended) / (now - last_look)
        last_ended, last_look = ended, now
        bar = f"[{'#' * (30 * ended // total):.<30}] {ended}/{total} files  {rate:4.0f} jobs/s  {now - started:4.1f} s"
        states = "  ".join(f"{state} {counts[state]}" for state in STATES)
        lines = [bar, f"{states}  retries {retries.value}"]
        if LIVE:
            width = (os.get_terminal_size().columns or 80) - 1  # a line that wraps could not be drawn over
            print("\x1b[2A" + "".join(f"\x1b[2K{line[:width]}\n" for line in lines), end="", flush=True)
        else:
            print(*lines, sep="  ", flush=True)
        if ended >= total:
            return
        if not any(process.is_alive() for process in workers):
            sys.exit("every worker process ended before the work did")


def report(files: list[tuple[str, str]], completed: list[Job[Any, Any]], failed: list[Job[Any, Any]]) -> bool:
    """Print the results; tell whether every file is accounted for, once."""
    ended = completed + failed
    results = [(job.data["path"], job.returnvalue or {}) for job in completed]
    seconds = (max(job.finished_on or 0 for job in ended) - min(job.timestamp for job in ended)) / 1000
    rows: list[tuple[str, float]] = [("parsed", len(completed)), ("failed", len(failed))]
    rows += [("retries", sum(job.attempts_made - 1 for job in ended))]
    rows += [(what, sum(result[what] for _, result in results)) for what in COUNTED]
    rows += [("seconds", round(seconds, 1)), ("jobs/s", round(len(ended) / max(seconds, 0.001)))]
    rows += sorted(Counter(str(job.processed_by) for job in ended).items())
    print("\nResults", *(f"  {what:10}{figure:>10,}" for what, figure in rows), sep="\n")
    print("\nThe longest files, in lines")
    for path, result in sorted(results, key=lambda row: -row[1]["lines"])[:5]:
        print(f"  {result['lines']:>10,}  {path}")
    print("\nWhat failed, and why" if failed else "\nNothing failed")
    for job in sorted(failed, key=lambda job: str(job.data["path"])):
        print(f"  {job.data['path']}: {job.failed_reason}")
    once = Counter((job.data["folder"], job.data["path"]) for job in ended) == Counter(files)
    whole = once and all(job.failed_reason for job in failed)
    print(f"\n{len(completed)} parsed + {len(failed)} failed", "=" if whole else "!=", f"{len(files)} files, each once")
    return whole


def demo(args: argparse.Namespace) -> int:
    """Add a job for every file, watch, report."""
    folders = [args.folder] if args.folder else [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    sizes = {
        (str(folder), path.relative_to(folder).as_posix()): path.stat().st_size
        for folder in folders
        for path in folder.rglob("*.py")
        if "site-packages" not in path.relative_to(folder).parts and path.is_file()
    }
    files = sorted(sizes)[: args.limit]
    if not files:
        sys.exit(f"no .py files in {', '.join(map(str, folders))}")
    # A queue of its own for every run, so that what an interrupted run left behind is not counted here.
    name = f"library-{time.time_ns()}"
    print(f"{len(files)} files of {' and '.join(map(str, folders))}")
    print(f"queue {name} at {args.connection}, {args.workers} worker processes")
    print(f"The drive is shaky on purpose: 1 file in {FAULTS} times out once and is tried again.", flush=True)
    where = {"connection": args.connection, "prefix": args.prefix}
    retry: JobOptions = {"attempts": 3, "backoff": Backoff.exponential(500)}
    with Queue[Any, Any](name, default_job_options=retry, max_len_events=1000, **where) as queue:
        queue.add_bulk(
            ("read", {"folder": file[0], "path": file[1]}, {"priority": 1} if sizes[file] > LARGE else {})
            for file in files
        )
        retries, (theirs, ours) = SPAWN.Value("i", 0), SPAWN.Pipe(duplex=False)
        given = [(name, f"reader-{n + 1}", where, retries, theirs) for n in range(args.workers)]
        workers = [SPAWN.Process(target=work, args=each) for each in given]
        # Ctrl-C reaches the children as well. They ignore it, as their parent does here: it will tell them to end.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in workers:
            process.start()
        signal.signal(signal.SIGINT, handler)
        try:
            watch(queue, len(files), workers, retries)
            whole = report(files, queue.get_jobs("completed"), queue.get_jobs("failed"))
            # Nobody reads this queue again: the keep policy of a last job removes the results of the others, or the
            # server would hold more with every run.
            queue.add("sweep", {}, remove_on_complete={"count": 1})
            while any(process.is_alive() for process in workers) and queue.get_job_counts("completed")["completed"] > 1:
                time.sleep(0.01)
        finally:
            ours.close()
            for process in workers:
                process.join()
    print(f"\n{READ_NEXT}")
    return 0 if whole else 1


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="Read Python's library, one job per file, on every core.")
    parser.add_argument("--connection", default="embedded:.toromq", help="default: %(default)s")
    parser.add_argument("--prefix", default="demo", help="what the keys begin with; default: %(default)s")
    parser.add_argument("--folder", type=Path, help="whose .py files; default: the library's and installed packages'")
    parser.add_argument("--limit", type=int, help="so many files at most")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="processes; default: %(default)s")
    try:
        return demo(parser.parse_args())
    except RedisConnectionError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("\nStopped. What was left stays in this queue; the next run has one of its own.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
