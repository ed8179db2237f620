"""Count the instructions of the hot path's steps: `python tools/count_instructions.py`, or with `--store` store them.

A step is taken a hundred times by rust/toromq-core/examples/hot_path.rs under Valgrind's Callgrind, which counts what
the processor executes: the same on a busy machine as on an idle one. What is stored in FIGURES is for one job, and
holds for the kind of processor, the compiler and the C library named there; tests/unit/test_instructions.py compares.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "rust" / "toromq-core" / "benches" / "instructions.json"
STORE = "python tools/count_instructions.py --store"
STEPS = ("add_encode", "add_decode", "finish_encode", "fetch_parse", "worker_round", "json_check", "lock_renewal")
#: How far a count may rise, and fall, before the stored figure has to be made anew.
MOST, LEAST = 1.05, 0.90
#: What unrelated changes move: where the compiler inlines, and which of the allocator's ways a free takes.
SLACK = 500
# As in benches/fixtures/mod.rs.
_JOBS = 64
_ROUNDS = 100


def build() -> Path:
    """Build the program as it is released; gives its path."""
    command = ["cargo", "build", "--release", "-p", "toromq-core", "--example", "hot_path", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    built = (json.loads(line).get("executable") for line in done.stdout.splitlines() if line.startswith("{"))
    return Path(next(path for path in built if path))


def count(program: Path) -> dict[str, int]:
    """The instructions of each step for one job."""

    def run(step: str) -> int:
        return _run(program, step, _ROUNDS)

    # What comes before the first round is the same for all.
    start = _run(program, STEPS[0], 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(run, STEPS)
        return {step: round((total - start) / _ROUNDS / _JOBS) for step, total in zip(STEPS, counts, strict=True)}


def _run(program: Path, step: str, rounds: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), step, str(rounds)]
    # Without the caller's environment, whose size moves what lies in memory.
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found[1])


def made_with() -> str:
    """What the counts depend on beside the program."""
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{compiler}, {' '.join(platform.libc_ver())}"


def differences(counted: dict[str, int], stored: dict[str, int]) -> Iterator[str]:
    """What is out of bounds, and what to do about it."""
    for step, now in counted.items():
        before = stored.get(step, 0)
        ratio = now / before if before else float("inf")
        said = f"{step}: {now:,} instructions a job, {ratio:.3f} times the stored {before:,}"
        if before and abs(now - before) <= SLACK:
            continue
        if ratio > MOST:
            yield f"{said}: find out what costs that (see CONTRIBUTING.md); if it is worth it: {STORE}"
        elif ratio < LEAST:
            yield f"{said}: well done; keep it with: {STORE}"


def main() -> None:
    """Print the counts beside the stored ones, or store them."""
    counted = count(build())
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    stored = known.get(platform.machine(), {}).get("steps", {})
    for step, now in counted.items():
        before = stored.get(step)
        print(f"{step:<16}{now:>8,}" + (f"{now / before:>8.3f} of {before:,}" if before else ""))
    if "--store" in sys.argv[1:]:
        known[platform.machine()] = {"made with": made_with(), "steps": counted}
        FIGURES.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
