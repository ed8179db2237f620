"""The blocking face is made from the async one, and has all of it."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import toromq
from toromq import sync

TOOL = Path(__file__).parents[2] / "tools" / "make_sync.py"
CLASSES = ("Job", "Queue", "Worker")


def make_sync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sync", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public(owner: type) -> dict[str, Any]:
    """The members that users may use, with the constructor and without what only one face can have."""
    names = [name for name in dir(owner) if not name.startswith("_")]
    return {name: inspect.getattr_static(owner, name) for name in ("__init__", *names)}


def parameters(member: Any) -> list[tuple[str, Any, Any]]:
    # Annotations are left out: each face names its own Job and Queue there.
    found = inspect.signature(member).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


MEMBERS = [(owner, member) for owner in CLASSES for member in public(getattr(toromq, owner))]


@pytest.mark.parametrize("name", make_sync().FILES)
def test_a_made_file_is_what_the_tool_makes_now(name: str) -> None:
    tool = make_sync()
    made = tool.PACKAGE / "sync" / name
    assert made.read_text(encoding="utf-8") == tool.blocking(name), "stale: run python tools/make_sync.py"


def test_no_file_was_made_by_hand_or_left_behind() -> None:
    tool = make_sync()
    found = {file.name for file in (tool.PACKAGE / "sync").glob("*.py")}
    assert found == {"__init__.py", *tool.FILES}


@pytest.mark.parametrize("name", sync.__all__)
def test_a_name_of_the_blocking_face_is_one_of_the_async_face(name: str) -> None:
    assert name in toromq.__all__


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_a_counterpart_of_its_own(name: str) -> None:
    assert name in sync.__all__
    assert getattr(sync, name) is not getattr(toromq, name)


@pytest.mark.parametrize(("owner", "member"), MEMBERS)
def test_a_public_member_exists_in_both_faces_with_the_same_parameters(owner: str, member: str) -> None:
    here, there = public(getattr(toromq, owner)), public(getattr(sync, owner))
    assert member in there
    assert type(here[member]) is type(there[member])
    if callable(here[member]):
        assert parameters(here[member]) == parameters(there[member])


@pytest.mark.parametrize("owner", CLASSES)
def test_the_blocking_face_has_nothing_that_the_async_one_lacks(owner: str) -> None:
    assert public(getattr(sync, owner)).keys() == public(getattr(toromq, owner)).keys()


@pytest.mark.parametrize(("owner", "member"), MEMBERS)
def test_nothing_of_the_blocking_face_needs_to_be_awaited(owner: str, member: str) -> None:
    made = public(getattr(sync, owner))[member]
    assert not inspect.iscoroutinefunction(made)
    assert not inspect.isasyncgenfunction(made)


@pytest.mark.parametrize("owner", ["Queue", "Worker"])
def test_each_face_is_a_context_manager_of_its_own_kind(owner: str) -> None:
    for made, enters, leaves in (
        (getattr(toromq, owner), "__aenter__", "__aexit__"),
        (getattr(sync, owner), "__enter__", "__exit__"),
    ):
        assert hasattr(made, enters)
        assert hasattr(made, leaves)
    assert not hasattr(getattr(sync, owner), "__aenter__")
    assert not hasattr(getattr(toromq, owner), "__enter__")
