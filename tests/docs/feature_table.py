"""Makes docs/features.md from the code: every public name, its BullMQ name, and a test that uses it.

`python -m tests.docs.feature_table` writes it. What a test uses is read from the tests' own syntax: the methods they
call, the attributes they read, the keywords they pass, and the texts that name an event or an option.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import toromq
from toromq import sync
from toromq.options import JobOptions
from toromq.types import QueueEventsOptions, QueueOptions, WorkerOptions

ROOT: Final = Path(__file__).resolve().parents[2]
TABLE: Final = ROOT / "docs" / "features.md"
SURFACE: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    (Path(__file__).with_name("bullmq_surface.toml")).read_text(encoding="utf-8")
)
COMMAND: Final = "python -m tests.docs.feature_table"
# Where tests of single features are, and where the same is done across clients.
_ALONE: Final = ("tests/integration", "tests/unit", "tests/typing")
_ACROSS: Final = ("tests/interop", "tests/property")
# As options and events are called.
_NAME: Final = re.compile(r"[a-zA-Z_][\w-]*")


@dataclass
class Row:
    """One public name."""

    ours: str
    theirs: str
    summary: str
    faces: str
    # How a test shows that it uses it: by a call, a reading, a keyword, a text, or by its name alone.
    used_as: str = "reading"
    alone: str | None = None
    across: str | None = None
    # Why no other client can see it.
    unseen: str | None = None


@dataclass
class Section:
    """The names of one kind."""

    title: str
    rows: list[Row] = field(default_factory=list)


def snake_case(name: str) -> str:
    """A BullMQ name in the form that ours have."""
    return name if name.isupper() or name[0].isupper() else re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def theirs_of(title: str) -> dict[str, str]:
    """Our names of a section, each with its BullMQ name; those that are absent here are left out."""
    stated = SURFACE.get(title, {})
    renamed: Mapping[str, str] = stated.get("renamed", {})
    absent: Mapping[str, str] = stated.get("absent", {})
    return {renamed.get(name, snake_case(name)): name for name in stated.get("names", "").split() if name not in absent}


def unseen_of(title: str) -> dict[str, str]:
    """Our names of a section that no other client can see anything of, and why."""
    reasons: Mapping[str, str] = SURFACE.get(title, {}).get("unseen", {})
    return {name: why for why, names in reasons.items() for name in names.split()}


def _members(kind: type[Any]) -> Iterator[str]:
    for name in sorted(dir(kind)):
        if not name.startswith("_"):
            yield name


def _attributes(kind: type[Any]) -> list[str]:
    """Public names that only exist once an object was made: those that a class's own text assigns to `self`."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("toromq"):
            found |= set(re.findall(r"\bself\.([a-z]\w*)\b[^=\n(]*(?::[^=\n]+)?= ", inspect.getsource(base)))
            found |= set(re.findall(r"\bself\.([a-z]\w*)(?=,[^=\n]*= )", inspect.getsource(base)))
    return sorted(found - set(dir(kind)))


def _summary(documented: Any) -> str:
    text = inspect.getdoc(documented) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _class_section(title: str, kind: type[Any], blocking: type[Any]) -> Section:
    theirs = theirs_of(title)
    section = Section(title)
    for name in sorted({*_members(kind), *_attributes(kind)} - {"EVENTS"}):
        member = inspect.getattr_static(kind, name, None)
        has_both = hasattr(blocking, name) or name in _attributes(blocking)
        faces = "both" if has_both else "async"
        used_as = "call" if callable(member) or isinstance(member, staticmethod | classmethod) else "reading"
        section.rows.append(Row(name, theirs.get(name, ""), _summary(member), faces, used_as))
    return section


@cache
def sections() -> list[Section]:
    """Every public name, without its tests."""
    made = [
        _class_section("Queue", toromq.Queue, sync.Queue),
        _class_section("Job", toromq.Job, sync.Job),
        _class_section("Worker", toromq.Worker, sync.Worker),
        _class_section("FlowProducer", toromq.FlowProducer, sync.FlowProducer),
        _class_section("FlowJob", toromq.FlowJob, sync.FlowJob),
        _class_section("JobNode", toromq.JobNode, sync.JobNode),
        _class_section("QueueEvents", toromq.QueueEvents, sync.QueueEvents),
        _class_section("QueueEventsProducer", toromq.QueueEventsProducer, sync.QueueEventsProducer),
    ]
    for title, names in (
        ("Job options", JobOptions.__annotations__),
        ("Queue options", QueueOptions.__annotations__),
        ("Worker options", WorkerOptions.__annotations__),
        ("QueueEvents options", QueueEventsOptions.__annotations__),
        ("Queue events", toromq.Queue.EVENTS),
        ("Worker events", toromq.Worker.EVENTS),
        ("QueueEvents events", toromq.QueueEvents.EVENTS),
    ):
        theirs = theirs_of(title)
        used_as = "text" if title.endswith("events") else "keyword"
        made.append(Section(title, [Row(name, theirs.get(name, ""), "", "both", used_as) for name in sorted(names)]))
    theirs = theirs_of("Exports")
    exports = Section("Exports")
    for name in toromq.__all__:
        if name.startswith("__"):
            continue
        exports.rows.append(Row(name, theirs.get(name, ""), _summary(getattr(toromq, name)), "both", "name"))
    made.append(exports)
    return made


Use = tuple[str, str]
"""How a name is used, and the name."""


@cache
def _uses(folders: tuple[str, ...]) -> Mapping[Use, list[str]]:
    """Each use of a name by the tests of some folders."""
    uses: dict[Use, list[str]] = defaultdict(list)
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            _read(file, uses)
    return uses


def _read(file: Path, uses: dict[Use, list[str]]) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    place = file.relative_to(ROOT).as_posix()
    shared: set[Use] = set()
    for node in tree.body:
        tests = [sub for sub in ast.walk(node) if _is_test(sub)]
        for test in tests:
            for use in set(_uses_of(test)):
                uses[use].append(f"{place}::{getattr(test, 'name', '')}")
        if not tests:
            # What tables and helpers of a file use is used by the tests that use them.
            shared |= set(_uses_of(node))
    for use in shared:
        uses[use].append(place)


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")


def _uses_of(node: ast.AST) -> Iterator[Use]:
    for sub in ast.walk(node):
        if isinstance(sub, ast.Call):
            # Called, or given to what calls it.
            for method in (sub.func, *sub.args):
                if isinstance(method, ast.Attribute):
                    yield "call", method.attr
        if isinstance(sub, ast.Attribute):
            yield "reading", sub.attr
            yield "name", sub.attr
        elif isinstance(sub, ast.Name):
            yield "name", sub.id
        elif isinstance(sub, ast.keyword) and sub.arg:
            yield "keyword", sub.arg
        elif isinstance(sub, ast.Constant) and isinstance(sub.value, str) and _NAME.fullmatch(sub.value):
            # A method that is called by its name, an option of a table, an event that is listened to.
            for kind in ("call", "keyword", "text"):
                yield kind, sub.value


def _best(found: list[str], name: str) -> str | None:
    """The test whose own name says most of what is asked; else the first one."""
    words = set(name.lower().split("_"))

    def score(test: str) -> tuple[bool, int]:
        return "::" in test, len(words & set(re.split(r"[_/:.]+", test.lower())))

    return max(found, key=score, default=None)


@cache
def with_tests() -> list[Section]:
    """Every public name, with a test of it alone and one across clients where there is one."""
    made = sections()
    for section in made:
        unseen = unseen_of(section.title)
        for row in section.rows:
            row.unseen = unseen.get(row.ours)
            row.alone = _best(_uses(_ALONE).get((row.used_as, row.ours), []), row.ours)
            row.across = _best(_uses(_ACROSS).get((row.used_as, row.ours), []), row.ours)
    return made


def _cell(test: str | None) -> str:
    if test is None:
        return ""
    file, _, name = test.partition("::")
    return f"[{(name or Path(file).name).replace('_', ' ').removeprefix('test ').strip()}](../{file})"


def render() -> str:
    """The page."""
    lines = [
        "# Features",
        "",
        "Every public name, what BullMQ 6.7 calls it, and a test that uses it: alone, and across Node BullMQ and us",
        "where other clients can see it, or else why they can't.",
        f"Made by `{COMMAND}`; a test fails when it is stale, when a public name has no test, when it is",
        "not tested with Node and there is no reason for that, or when a name of BullMQ is neither here nor explained.",
    ]
    for section in with_tests():
        lines += ["", f"## {section.title}", ""]
        lines += ["| toromq | BullMQ | faces | what | test | with Node |", "| --- | --- | --- | --- | --- | --- |"]
        for row in section.rows:
            theirs = f"`{row.theirs}`" if row.theirs else "ours alone"
            across = _cell(row.across) or row.unseen or ""
            cells = (f"`{row.ours}`", theirs, row.faces, row.summary, _cell(row.alone), across)
            lines.append(f"| {' | '.join(cells)} |")
        absent: Mapping[str, str] = SURFACE.get(section.title, {}).get("absent", {})
        if absent:
            lines += ["", "Not here:", ""]
            lines += [f"- `{name}`: {why}" for name, why in absent.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(render(), encoding="utf-8")
