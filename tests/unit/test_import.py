"""What importing the package costs its programs: no thread, and only the modules of what they use."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import toromq
import toromq.sync

FACES = pytest.mark.parametrize("face", [toromq, toromq.sync], ids=["async", "sync"])
# Where Linux shows the threads of a process, those of the engine too.
_THREADS = "/proc/self/task"
# Of our own, what a program that only adds jobs has no use for.
_UNUSED = frozenset(
    f"toromq.{name}"
    for name in (
        "_dataclass_payload", "_event_listeners", "_flow_nodes", "_sandbox", "_worker_base", "cli", "compat", "events",
        "flow", "metrics", "queue_events", "schedulers", "server", "telemetry", "types", "worker",
    )
)  # fmt: skip
# Of others, what takes long and only few need.
_HEAVY = frozenset(
    (
        "dataclasses", "difflib", "importlib.metadata", "json", "msgspec", "multiprocessing", "opentelemetry",
        "prometheus_client", "pydantic", "uuid", "zoneinfo",
    )
)  # fmt: skip


def loaded(program: str) -> tuple[int, set[str]]:
    """How many threads a program has at its end, and the modules it has loaded that Python itself has not."""
    shown = f"import os, sys\nprint(len(os.listdir({_THREADS!r})) if os.path.isdir({_THREADS!r}) else 1, *sys.modules)"
    command = [sys.executable, "-I", "-c"]
    bare = subprocess.run([*command, shown], capture_output=True, text=True, check=True).stdout.split()
    ran = subprocess.run([*command, f"{program}\n{shown}"], capture_output=True, text=True, check=True).stdout.split()
    return int(ran[0]), set(ran[1:]) - set(bare[1:])


def homes_of(face: Any) -> dict[str, str]:
    """The module of each name of a face."""
    return {name: home if home.startswith("toromq.") else f"toromq.{home}" for name, home in face._HOME_OF.items()}


@pytest.mark.parametrize("module", ["toromq", "toromq.sync"])
def test_importing_starts_no_thread_and_loads_nothing(module: str) -> None:
    threads, modules = loaded(f"import {module}")
    assert threads == 1
    assert modules <= {"__future__", "toromq", "toromq.sync"}


@pytest.mark.parametrize("face", ["toromq", "toromq.sync"])
def test_a_queue_loads_nothing_that_only_others_use(face: str) -> None:
    threads, modules = loaded(f"import {face}\n{face}.Queue('mail')")
    assert threads == 1
    assert f"{face}.queue" in modules
    # Of the other face as well.
    other = "toromq.queue" if face == "toromq.sync" else "toromq.sync"
    assert not modules & (_UNUSED | _HEAVY | {other})


def test_a_worker_of_coroutines_loads_no_blocking_face() -> None:
    _, modules = loaded("import toromq\nasync def process(job): ...\ntoromq.Worker('mail', process)")
    assert "toromq.worker" in modules
    assert not any(name.startswith("toromq.sync") for name in modules)


@FACES
def test_every_name_is_there_and_is_the_one_of_its_module(face: Any) -> None:
    homes = homes_of(face)
    assert {*homes, "__version__"} == {*face.__all__, "__version__"}
    for name, home in homes.items():
        assert getattr(face, name) is getattr(importlib.import_module(home), name)


@FACES
def test_type_checkers_are_told_the_same_homes(face: Any) -> None:
    tree = ast.parse(Path(face.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("toromq")
        for alias in node.names
    }
    told.pop("__version__", None)
    assert told == homes_of(face)


@FACES
def test_names_and_modules_are_listed_before_they_are_loaded(face: Any) -> None:
    assert {*face.__all__, *face._MODULES} <= set(dir(face))
    for module in face._MODULES:
        assert getattr(face, module) is importlib.import_module(f"{face.__name__}.{module}")


@FACES
def test_a_name_that_is_not_there_is_refused_by_its_name(face: Any) -> None:
    with pytest.raises(AttributeError, match=rf"^module '{face.__name__}' has no attribute 'Quue'$"):
        _ = face.Quue
    with pytest.raises(ImportError):
        exec(f"from {face.__name__} import Quue")


def test_the_version_is_that_of_the_engine() -> None:
    assert toromq.__version__ == importlib.import_module("toromq._native").version


def test_everything_can_be_imported_by_a_star() -> None:
    names: dict[str, Any] = {}
    exec("from toromq import *", names)
    assert set(toromq.__all__) <= set(names)


def test_threads_that_look_at_names_at_once_all_find_them() -> None:
    program = """
import threading, toromq, toromq.sync
together, found = threading.Barrier(8), []
def look(turn):
    names = [(face, name) for face in (toromq, toromq.sync) for name in face.__all__]
    together.wait()
    # From another place on in each thread, so that they meet in the middle of what another imports.
    for face, name in names[turn * 8:] + names[:turn * 8]:
        found.append(getattr(face, name))
threads = [threading.Thread(target=look, args=(turn,)) for turn in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == (f"{8 * len([*toromq.__all__, *toromq.sync.__all__])}\n", "")


@FACES
def test_a_part_that_does_not_fit_is_named(face: Any) -> None:
    """A native module of another version, say: nobody must read that `Queue` does not exist."""
    program = (
        "import sys, types\nsys.modules['toromq._native'] = types.ModuleType('toromq._native')\n"
        f"from {face.__name__} import Queue"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "can't be imported: module 'toromq._native' has no attribute 'to_json'" in ran.stderr
    assert "ImportError" in ran.stderr.splitlines()[-1]
