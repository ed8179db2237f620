"""The hot path takes no more instructions a job than what is stored; see tools/count_instructions.py."""

from __future__ import annotations

import json
import platform
import shutil

import pytest

from tests.support.not_run import not_run
from tools.count_instructions import FIGURES, STEPS, STORE, build, count, differences, made_with


@pytest.mark.timeout(900)  # a release build may come first
def test_the_hot_path_takes_no_more_instructions_than_stored() -> None:
    if shutil.which("valgrind") is None:
        not_run("instruction", "there is no valgrind on the PATH (Debian and Ubuntu: apt-get install valgrind)")
    stored = json.loads(FIGURES.read_text()).get(platform.machine())
    if stored is None:
        not_run("instruction", f"no figures are stored for {platform.machine()}; store them with: {STORE}")
    assert set(stored["steps"]) == set(STEPS)
    found = list(differences(count(build()), stored["steps"]))
    if found and made_with() != stored["made with"]:
        found.append(f"stored with {stored['made with']}, here with {made_with()}: that alone may be the difference")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("now", "said"), [(20_000, None), (21_000, None), (21_001, "--store"), (18_000, None), (17_999, "well done")]
)
def test_a_count_may_rise_by_a_twentieth_and_fall_by_a_tenth(now: int, said: str | None) -> None:
    found = list(differences({"step": now}, {"step": 20_000}))
    assert [said is not None and said in text for text in found] == ([True] if said else [])


@pytest.mark.parametrize(("now", "differs"), [(1_500, False), (1_501, True), (500, False), (499, True)])
def test_a_small_count_may_change_by_as_much_as_chance_does(now: int, differs: bool) -> None:
    assert bool(list(differences({"step": now}, {"step": 1_000}))) is differs


def test_a_step_that_is_not_stored_is_a_difference() -> None:
    assert list(differences({"step": 1}, {}))
