"""Where a sandboxed processor is, and what is refused before a child is started for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from toromq import ConfigurationError
from toromq._sandbox.target import LoadError, Target, load, target_of


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("json:loads", Target("json", "", "loads")),
        ("os.path:join", Target("os.path", "", "join")),
        ("xml.dom.minidom:Node.hasChildNodes", Target("xml.dom.minidom", "", "Node.hasChildNodes")),
        ("json:no_such_function", Target("json", "", "no_such_function")),
    ],
)
def test_modules_are_taken_as_they_are_and_not_imported(given: str, expected: Target) -> None:
    before = set(sys.modules)
    assert target_of(given) == expected
    assert str(target_of(given)) == given
    assert set(sys.modules) == before


def test_a_package_is_looked_into_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "looked_into" / "inner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "jobs.py").write_text("")
    (tmp_path / "lone.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert target_of("looked_into.inner.jobs:run") == Target("looked_into.inner.jobs", "", "run")
    assert target_of("looked_into.inner:run") == Target("looked_into.inner", "", "run")
    for missing in ("looked_into.inner.job", "looked_into.iner.jobs", "lone.jobs", "looked_in"):
        with pytest.raises(ConfigurationError, match=rf"processor: .* no module '{missing}'"):
            target_of(f"{missing}:run")


def test_files_are_taken_by_their_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work.py").write_text("")
    monkeypatch.chdir(tmp_path)
    file = os.path.join(os.getcwd(), "work.py")
    assert target_of("work.py") == target_of(Path("work.py")) == target_of(file) == Target("", file, "process")
    assert target_of("./work.py:other").function == "other"
    assert str(target_of("work.py:a.b")) == f"{file}:a.b"


@pytest.mark.parametrize(
    "given",
    ["", ":", "json", "json:", ":loads", "json:loads()", "json loads", "a..b:c", ".a:b", "a:b:c", "1a:b", "w.pyc"],
)
def test_other_texts_are_refused_with_the_forms_that_there_are(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^processor: got .*'package\.module:function'.*'path/to/file\.py'"):
        target_of(given)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for given in (tmp_path / "no.py", str(tmp_path / "no.py:run")):
        with pytest.raises(ConfigurationError, match=r"processor: .* there is no file '/.*/no\.py'"):
            target_of(given)
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigurationError, match="there is no file"):
        target_of(tmp_path / "folder.py")


def test_the_main_module_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="__main__ is another module; give the path of the file"):
        target_of("__main__:run")


def test_what_is_loaded_is_known_to_be_async_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__processor__", sys)
    file = tmp_path / "kinds.py"
    file.write_text(
        "class Called:\n"
        "    async def __call__(self, job): pass\n"
        "    def method(self, job): pass\n"
        "called = Called()\n"
        "async def process(job): pass\n"
        "def plain(job): pass\n"
    )
    kinds = {name: load(target_of(f"{file}:{name}"))[1] for name in ("process", "plain", "called", "called.method")}
    assert kinds == {"process": True, "plain": False, "called": True, "called.method": False}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (Target("no_such_module", "", "run"), "cannot import the module 'no_such_module': ModuleNotFound"),
        (Target("json", "", "run"), "cannot import 'json:run': module 'json' has no attribute 'run'"),
        (Target("json", "", "__name__"), "cannot import 'json:__name__': it is 'json', and no function"),
        (Target("", "/no/such/file.py", "process"), "cannot import the file '/no/such/file.py': FileNotFoundError"),
    ],
)
def test_what_cannot_be_loaded_says_what_and_why(
    target: Target, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "__processor__", sys)
    with pytest.raises(LoadError) as raised:
        load(target)
    assert str(raised.value).startswith(reason)
