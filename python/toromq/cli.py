"""The ``toromq`` command.

Exit codes: 0 for success, 1 for an error, also where ``flow show`` finds no such job, 2 for a wrong command line, and 3
when ``server status`` finds no running server, as service managers have it; 130 after Ctrl-C and 141 where nobody reads
what it prints any more, as shells have it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import select
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from toromq import server
from toromq.errors import ToroError
from toromq.server.launcher import stop_command

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

EXIT_ERROR: Final = 1
EXIT_NOT_RUNNING: Final = 3
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141

_EXAMPLES: Final = """\
example:
  toromq server start                   start the server of ./.toromq and leave it running
  toromq server start --port 6380       the same, reachable at redis://127.0.0.1:6380 as well
  toromq server status                  what runs, and how to connect to it
  toromq server stop                    write everything to disk and end it
  toromq flow show reports 7            job 7 of the queue "reports" and those below it, as a tree
  toromq cron "30 2 * * *" --tz Europe/Madrid    when a job scheduler with this pattern makes its jobs due
"""


_CRON_EXAMPLES: Final = """\
fields, from the right: day-of-week month day-of-month hour minute second; those left out are * * * * * 0
  15 3 * * 1-5      at 03:15 from Monday to Friday
  */10 * * * * *    every ten seconds
  0 9 L * *         at 09:00 on the last day of the month; 5L is its last Friday, and 5#2 its second
  H 4 * * *         once in the hour from 04:00, at a minute that depends on the scheduler
  @hourly           also @secondly @minutely @daily @weekdays @weekends @weekly @monthly @yearly @annually
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code; `arguments` are the words after its name, by default this process's."""
    options = _parser().parse_args(arguments)
    try:
        code = _done(options)
        # What can't be written is said here, not when the interpreter ends.
        print(end="", flush=True)
    except (ToroError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return EXIT_BROKEN_PIPE
        print(f"toromq: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _nobody_reads() -> bool:
    """Whether what is printed has no reader any more, as with `| head -1`; then no more is tried."""
    poll = select.poll()
    # Nothing is asked for: only errors are told.
    poll.register(sys.stdout.fileno(), 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _done(options: argparse.Namespace) -> int:
    if options.action == "show":
        return _show_flow(options)
    if options.action == "cron":
        return _cron(options)
    if options.action == "start":
        return _start(options.path, options.port)
    if options.action == "stop":
        return _stop(options.path)
    return _status(options.path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toromq",
        description="Job queues on Redis. This command looks after the server behind embedded:PATH, and into queues.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"toromq {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    group = commands.add_parser(
        "server",
        help="start, stop or look at the server of a data directory",
        description="Start, stop or look at the server of a data directory.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("start", "start the server and leave it running in the background"),
        ("stop", "write everything to disk and end the server, whoever uses it"),
        ("status", "show what runs; exit code 3 if nothing does"),
    ):
        action = actions.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument(
            "--path", default=server.DEFAULT_PATH, help="the data directory (default: %(default)s in this directory)"
        )
        if name == "start":
            action.add_argument(
                "--port",
                type=int,
                metavar="N",
                help="also listen on this TCP port of 127.0.0.1, open to every local user (default: unix socket only)",
            )
    _add_flow_parser(commands)
    _add_cron_parser(commands)
    return parser


def _add_flow_parser(commands: Any) -> None:
    summary = "look at a job and those below it"
    group = commands.add_parser("flow", help=summary, description=summary[0].upper() + summary[1:] + ".")
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "draw the tree of a job with the state of each"
    show = actions.add_parser("show", help=summary, description=summary[0].upper() + summary[1:] + ".")
    show.add_argument("queue", metavar="QUEUE", help="the queue of the topmost job")
    show.add_argument("job_id", metavar="JOB_ID", help="the id of the topmost job")
    show.add_argument("--url", help="where Redis is (default: $TOROMQ_URL, else redis://localhost:6379/0)")
    show.add_argument("--prefix", default="bull", help="what the keys of the queue begin with (default: %(default)s)")
    show.add_argument("--depth", type=int, default=10, metavar="N", help="levels to show (default: %(default)s)")
    show.add_argument(
        "--max-children",
        type=int,
        default=20,
        metavar="N",
        help="children of a job to show of each outcome (default: %(default)s)",
    )


def _add_cron_parser(commands: Any) -> None:
    summary = "tell when a cron pattern fires"
    cron = commands.add_parser(
        "cron",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}: on the wall clock of the zone, and in UTC.",
        epilog=_CRON_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cron.set_defaults(action="cron")
    cron.add_argument("pattern", metavar="PATTERN", help="up to six fields, or a name such as @daily, in quotes")
    cron.add_argument("--tz", default="UTC", metavar="ZONE", help="the zone it is meant in (default: %(default)s)")
    cron.add_argument("--count", type=_positive, default=5, metavar="N", help="times to show (default: %(default)s)")
    cron.add_argument(
        "--start",
        type=_time,
        metavar="TIME",
        help="show those after this, as ISO 8601 on the wall clock of the zone, or with an offset (default: now)",
    )
    cron.add_argument("--seed", metavar="TEXT", help="what H depends on: a scheduler's hash_seed, else its id")


def _positive(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed are 1 to 1000")
    return int(text)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed is ISO 8601, like 2026-03-28T02:30") from None


def _version() -> str:
    try:
        return importlib.metadata.version("toromq")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version (the package is not installed)"


def _start(path: str, port: int | None) -> int:
    before = server.status(path)
    after = server.start(path, port)
    print(f"{'Already running' if before.running else 'Started'}: {after.version}, process {after.pid}")
    print("Connect to it with any of:")
    _print_urls(after)
    print(f"It runs until: {stop_command(after.path)}")
    return 0


def _stop(path: str) -> int:
    before = server.status(path)
    if not server.stop(path):
        print(f"Not running: {before.path}")
        return 0
    print(f"Stopped: {before.path} (process {before.pid})")
    if before.clients:
        print(f"Note: {_counted(before.clients, 'connection')} had been open and ended with it.")
    return 0


def _status(path: str) -> int:
    found = server.status(path)
    if not found.running:
        print(f"Not running: {found.path}" if found.problem is None else f"Not answering: {found.problem}")
        return EXIT_NOT_RUNNING
    print(f"Running: {found.version}, process {found.pid}")
    _print_urls(found)
    print(f"  data         {found.path}")
    print(f"  append-only  {'on' if found.aof else 'OFF or failing: see server.log there'}")
    print(f"  memory       {_readable_size(found.used_memory or 0)}")
    print(f"  clients      {_counted(found.clients or 0, 'connection')}")
    print(f"  ends         {'when stopped' if found.keep_alive else 'with its last user'}")
    return 0


def _show_flow(options: argparse.Namespace) -> int:
    # Not for those who only start a server.
    from toromq._flow_view import drawn
    from toromq.sync import FlowProducer

    with FlowProducer(connection=options.url, prefix=options.prefix) as flow:
        tree = flow.get_flow(
            options.queue, options.job_id, depth=options.depth, max_children=options.max_children, states=True
        )
    if tree is None:
        place = f"queue {options.queue!r} under the prefix {options.prefix!r}"
        print(f"toromq: there is no job {options.job_id} in {place}", file=sys.stderr)
        return EXIT_ERROR
    if tree.job.parent:
        print(f"below {tree.job.parent_key}")
    colors = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    encoding = sys.stdout.encoding or "ascii"
    fancy = encoding.lower().replace("-", "") == "utf8"
    for line in drawn(tree, options.depth, colors=colors, fancy=fancy):
        # Names may have characters that the terminal has not.
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    return 0


def _cron(options: argparse.Namespace) -> int:
    from toromq._cron_view import preview

    for line in preview(options.pattern, options.tz, options.start, options.count, options.seed):
        print(line)
    return 0


def _print_urls(found: server.ServerStatus) -> None:
    print(f"  embedded:{found.path}")
    print(f"  {found.url}")
    if found.tcp_url:
        print(f"  {found.tcp_url}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _readable_size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
