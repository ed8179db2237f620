"""Make the blocking face from the async one: `python tools/make_sync.py`, or with `--check` only say what is stale.

Each file of FILES is taken over with `async` and `await` left out. What has no counterpart without an event loop is
marked there: a line that ends in `# async only` is dropped, and so is all that follows a line `# --- async only`.
Then ruff takes out the imports that nothing needs any more.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "toromq"
FILES = (
    "flow.py", "job.py", "queue_events.py", "queue_events_producer.py", "queue_getters.py", "queue_limits.py",
    "queue_metrics.py", "queue_schedulers.py", "queue.py", "sandbox_job.py", "worker_by_hand.py", "worker.py",
)  # fmt: skip
NOTICE = "# Made from ../{name} by tools/make_sync.py; change that one.\n"
RULES = (
    (r"(?m)^( *)async (def|with|for)\b", r"\1\2"),
    (r"((?:>>>|\.\.\.) +)async (def|with|for)\b", r"\1\2"),
    # Not `async def`: what is said of coroutine functions is said of them in both faces.
    (r"`async (with|for)\b", r"`\1"),
    (r"\bawait ", ""),
    (r"asyncio\.wait_for\((.*)\.wait\(\), (.*)\)", r"\1.wait(\2)"),
    (r"asyncio\.shield\(self\._reading\)", "self._catch_up()"),
    (r"\bAsyncListeners\b", "Listeners"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"__aiter__", "__iter__"),
    (r"__anext__", "__next__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\basyncio\b", "threading"),
    (r"(from toromq\._bridge import .*)\bport\b", r"\1blocking_port as port"),
    (r"from toromq\.(job|queue(?:_\w+)?|worker_by_hand) import", r"from toromq.sync.\1 import"),
    (r"(?<!\.)\bsync\.(Job|Queue)\b", r"\1"),
)


def blocking(name: str) -> str:
    """The blocking form of a file."""
    text = (PACKAGE / name).read_text(encoding="utf-8")
    text = re.split(r"\n+    # --- async only", text)[0] + "\n"
    text = "".join(line for line in text.splitlines(keepends=True) if not line.rstrip().endswith("# async only"))
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    text = NOTICE.format(name=name) + re.sub(r"\n+\Z", "\n", text)
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--fix-only", "--select", "I,F401"]
    command += ["--stdin-filename", str(PACKAGE / "sync" / name), "-"]
    if re.search(r"\bport\(", text) and "blocking_port" not in text:
        raise SystemExit(f"{name}: write the import from toromq._bridge in one line")
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Write what is stale, or with `--check` name it and fail."""
    stale = []
    for name in FILES:
        target = PACKAGE / "sync" / name
        text = blocking(name)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                target.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        print(f"stale: {', '.join(stale)}; run python tools/make_sync.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
