"""A data directory for every test."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toromq import server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory that does not exist yet. Its server is stopped after the test, whatever happened."""
    # Not tmp_path, whose length depends on the test's name: a unix socket has room for about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="toromq-") as folder:
        path = Path(folder) / "data"
        yield path
        found = server.status(path)
        if found.pid is not None:
            os.kill(found.pid, signal.SIGCONT)
        server.stop(path)
