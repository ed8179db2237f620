"""The text of a traceback is the one that the standard library makes, the first time and from then on."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from toromq import _traceback
from toromq._traceback import traceback_text


class Odd(Exception):
    """Says nothing."""

    def __str__(self) -> str:
        return ""


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Empty(Exception):
    """Is false, as a collection of nothing is."""

    def __bool__(self) -> bool:
        return False


class Placeless(Exception):
    pass


Placeless.__module__ = 7  # type: ignore[assignment]


def plain() -> NoReturn:
    raise ValueError("some words")


def through(*calls: Callable[..., Any]) -> None:
    first, *others = calls
    first(*others) if others else first()


def operators() -> int:
    nothing = SimpleNamespace(value=0)
    return (1 + 2) / nothing.value  # type: ignore[no-any-return]


def wide() -> NoReturn:
    raise KeyError("größer", {"日本": 1}["日本"])


def several_lines() -> None:
    through(
        through,
        plain,
    )


def caused() -> None:
    try:
        plain()
    except ValueError as error:
        raise RuntimeError("because of it") from error


def meanwhile() -> None:
    try:
        caused()
    except RuntimeError:
        plain()


def silenced() -> None:
    try:
        caused()
    except RuntimeError:
        raise Odd from None


def false_with_a_cause() -> None:
    try:
        plain()
    except ValueError as error:
        raise Empty("empty") from error


def never_raised_cause() -> NoReturn:
    raise RuntimeError("on its own") from ValueError("never raised")


def its_own_cause() -> NoReturn:
    error, other = RuntimeError("one"), RuntimeError("two")
    error.__cause__, other.__cause__ = other, error
    try:
        raise other
    except RuntimeError:
        raise error from other


def noted() -> NoReturn:
    error = ValueError("some words")
    error.add_note("and a note")
    raise error


def grouped() -> NoReturn:
    errors: list[Exception] = []
    for call in (plain, operators):
        try:
            call()
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("both", errors)


def group_as_a_cause() -> NoReturn:
    try:
        grouped()
    except ExceptionGroup as group:
        raise RuntimeError("because of both") from group


def misspelled() -> None:
    some_name = 1
    print(some_nam)  # type: ignore[name-defined]  # noqa: F821
    print(some_name)


def no_attribute() -> None:
    print("".uper())  # type: ignore[attr-defined]


def no_module() -> None:
    from os import pathh  # type: ignore[attr-defined]

    print(pathh)


def no_syntax() -> None:
    compile("def f(:\n  pass", "file.py", "exec")


def without_a_file() -> None:
    exec(compile("def inner():\n  raise ValueError('inside')\ninner()", "<nowhere>", "exec"), {})


def deep(n: int) -> None:
    if n:
        deep(n - 1)
    plain()


def in_turn(n: int) -> None:
    other_turn(n)


def other_turn(n: int) -> None:
    if n:
        in_turn(n - 1)
    plain()


def generator() -> None:
    print(list(1 // n for n in (1, 0)))


def placeless() -> NoReturn:
    raise Placeless("of no module")


def says_two_lines() -> NoReturn:
    raise ValueError("one\ntwo\n")


def speechless() -> NoReturn:
    raise Speechless


def leaves() -> NoReturn:
    sys.exit("leaving")


CALLS: list[Callable[[], Any]] = [
    plain, lambda: through(through, plain), operators, wide, several_lines, caused, meanwhile, silenced,
    false_with_a_cause, never_raised_cause, its_own_cause, noted, grouped, group_as_a_cause, misspelled, no_attribute,
    no_module, no_syntax, without_a_file, lambda: deep(2), lambda: deep(30), lambda: in_turn(30), generator, placeless,
    says_two_lines, speechless, leaves,
]  # fmt: skip


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def expected(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_the_text_is_the_librarys_own_whenever_it_is_made(call: Callable[[], Any]) -> None:
    _traceback._places.clear()
    for _ in range(3):
        error = raised(call)
        assert traceback_text(error) == expected(error)


def test_texts_of_many_kinds_do_not_get_mixed_up() -> None:
    errors = [raised(call) for call in CALLS]
    for _ in range(2):
        assert [traceback_text(error) for error in errors] == [expected(error) for error in errors]


def test_an_exception_that_was_never_raised_is_told_too() -> None:
    error = ValueError("never raised")
    assert traceback_text(error) == expected(error)


def test_two_functions_in_one_line_are_two_places() -> None:
    first, second = (lambda: 1 // 0), (lambda: [][1])
    for call in (first, second, first, second):
        error = raised(call)
        assert traceback_text(error) == expected(error)


def test_the_same_code_of_two_files_is_two_places(tmp_path: Path) -> None:
    for name in ("one.py", "two.py", "one.py"):
        (tmp_path / name).write_text("def f():\n    raise ValueError('there')\n")
        names: dict[str, Any] = {}
        exec(compile((tmp_path / name).read_text(), tmp_path / name, "exec"), names)
        error = raised(names["f"])
        assert traceback_text(error) == expected(error)
        assert name in traceback_text(error)


def test_a_file_that_changed_is_read_anew_and_one_that_is_gone_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    file.write_text("def f():\n    raise ValueError('there')\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), file, "exec"), names)
    error = raised(names["f"])
    assert "raise ValueError('there')" in traceback_text(error)
    file.write_text("def f():\n    raise ValueError('there')  # no longer\n")
    os.utime(file, (1, 1))
    assert traceback_text(error) == expected(error)
    assert "# no longer" in traceback_text(error)
    file.unlink()
    assert traceback_text(error) == expected(error)
    assert "raise ValueError" not in traceback_text(error)


def test_a_cleared_cache_of_lines_changes_nothing() -> None:
    error = raised(meanwhile)
    before = traceback_text(error)
    linecache.clearcache()
    assert traceback_text(error) == before == expected(error)


def test_a_limit_of_places_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised(lambda: in_turn(3))
    traceback_text(error)
    monkeypatch.setattr(sys, "tracebacklimit", 2, raising=False)
    assert traceback_text(error) == expected(error)


def test_only_so_many_places_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _traceback._places.clear()
    monkeypatch.setattr(_traceback, "_MOST_PLACES", 3)
    for call in CALLS:
        error = raised(call)
        assert traceback_text(error) == expected(error)
        assert len(_traceback._places) <= 3
