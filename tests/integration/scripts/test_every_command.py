"""No command, reply code or event goes untested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.scripts.commands import CODES, COMMANDS, LUA

_TESTS = {path.stem: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}


def _tests_of(command: str) -> str:
    return "".join(text for name, text in _TESTS.items() if name.startswith(f"test_{command}"))


def test_the_commands_are_those_of_the_folder() -> None:
    assert sorted(COMMANDS) == sorted(path.stem for path in (LUA / "commands").glob("*.lua"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_tests_that_name_all_it_may_say(command: str) -> None:
    tests = _tests_of(command)
    assert tests, f"no test_{command}.py"
    header = (LUA / "commands" / f"{command}.lua").read_text().split("]]")[0]
    codes = re.findall(r"^    ([A-Z_]{3,})  ", header.split("  RETURNS\n")[1], re.MULTILINE)
    events = [name for name in header.split("  EVENTS\n")[1].strip().split(", ") if name != "none"]
    assert [name for name in (*codes, *events) if f'"{name}"' not in tests] == []


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_named_by_a_test(code: str) -> None:
    assert any(f'"{code}"' in text for text in _TESTS.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_replies_only_the_codes_of_its_header(command: str) -> None:
    text = (LUA / "commands" / f"{command}.lua").read_text()
    header, body = text.split("]]", 1)
    assert [code for code in sorted(set(re.findall(r"CODE\.([A-Z_]+)", body))) if code not in header] == []
