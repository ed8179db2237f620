"""Type checkers accept what users should write, and refuse what they should not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-error-summary", "--no-incremental", "--disallow-any-generics"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


def _complaints(checker: str, file: Path) -> dict[int, str]:
    """What a checker says of each line."""
    command = [sys.executable, "-m", *_CHECKERS[checker], str(file)]
    said = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    found = re.findall(rf"{re.escape(file.name)}:(\d+)(?::\d+)?(?: -|:) error:? (.*)", said.stdout)
    assert said.returncode == 0 or found, said.stdout + said.stderr
    return {int(line): words for line, words in found}


@pytest.mark.parametrize("checker", _CHECKERS)
def test_what_users_should_write_is_accepted(checker: str) -> None:
    assert _complaints(checker, _HERE / "accepted.py") == {}


@pytest.mark.parametrize("checker", _CHECKERS)
def test_what_users_should_not_write_is_refused(checker: str) -> None:
    file = _HERE / "refused.py"
    lines = file.read_text().splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    complaints = _complaints(checker, file)
    missing = {number: lines[number - 1].strip() for number in wanted - complaints.keys()}
    too_many = {number: complaints[number] for number in complaints.keys() - wanted}
    assert (missing, too_many) == ({}, {})
