"""docs/flows.md: its program runs and prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.docs.feature_table import ROOT
from tests.support.redisbox import RedisBox


def test_the_program_prints_what_the_page_says() -> None:
    page = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (promised,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    with RedisBox() as box:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, "TOROMQ_URL": box.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == promised
