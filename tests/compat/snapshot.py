"""Names and signatures of the installed package `bullmq`, as data: `python -m tests.compat.snapshot`.

Nothing is read but what `dir`, `vars` of instances and `inspect.signature` tell.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, is_typeddict

FILE = Path(__file__).with_name("bullmq-3.4.4.json")
# Nobody listens there, and nobody is asked: making these objects sends nothing.
_NOWHERE = {"connection": "redis://127.0.0.1:1"}


def surface(package: str = "bullmq") -> dict[str, Any]:
    """What the package offers."""
    bullmq = importlib.import_module(package)
    classes = {name: value for name, value in _public(bullmq) if inspect.isclass(value)}
    typed = {name: value for name, value in _public(bullmq.types) if is_typeddict(value)}
    return {
        "names": sorted(classes),
        "modules": _modules(bullmq),
        "methods": {name: _methods(value) for name, value in sorted(classes.items())},
        "attributes": {name: sorted(_attributes(value)) for name, value in _instances(bullmq).items()},
        "options": {name: sorted(value.__annotations__) for name, value in sorted(typed.items())},
    }


def _public(space: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(space, name)) for name in dir(space) if not name.startswith("_")]


def _modules(bullmq: ModuleType) -> dict[str, list[str]]:
    found = {}
    for module in pkgutil.walk_packages(bullmq.__path__, "bullmq."):
        if "node_modules" in module.name or "postgres" in module.name:
            continue
        loaded = importlib.import_module(module.name)
        # What a module only imports is another's; a package is there to gather.
        names = [name for name, value in _public(loaded) if _home(value).startswith(module.name)]
        found[module.name.removeprefix("bullmq.")] = sorted(names)
    return found


def _home(value: Any) -> str:
    return getattr(value, "__module__", None) or ""


def _methods(kind: type) -> dict[str, Any]:
    found = {}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") and (name != "__init__" or issubclass(kind, Exception)):
            continue
        if isinstance(member, property):
            found[name] = None
        elif inspect.isfunction(member) or isinstance(member, staticmethod | classmethod):
            found[name] = parameters(getattr(kind, name))
    return found


def parameters(function: Any) -> list[list[Any]]:
    """Of each: its name, its kind, and whether it may be left out."""
    return [
        [parameter.name, parameter.kind.name, parameter.default is not parameter.empty or "VAR" in parameter.kind.name]
        for parameter in inspect.signature(function).parameters.values()
    ]


def _attributes(instance: Any) -> list[str]:
    return [name for name in vars(instance) if not name.startswith("_")]


def _instances(bullmq: Any) -> dict[str, Any]:
    queue = bullmq.Queue("nowhere", _NOWHERE)
    return {
        "AbortController": bullmq.AbortController(),
        "AbortError": bullmq.AbortError(),
        "FlowProducer": bullmq.FlowProducer(_NOWHERE["connection"]),
        "Job": bullmq.Job(queue, "name", {}),
        "JobScheduler": queue.jobScheduler,
        "Queue": queue,
        "QueueEvents": bullmq.QueueEvents("nowhere", {**_NOWHERE, "autorun": False}),
        "QueueEventsProducer": bullmq.QueueEventsProducer("nowhere", _NOWHERE),
        "Worker": bullmq.Worker("nowhere", None, _NOWHERE),
    }


def text() -> str:
    """As the file has it: a line for each entry, which a person can read and a diff can show."""
    lines = []
    for part, entries in surface().items():
        if isinstance(entries, list):
            lines.append(f'"{part}": {json.dumps(entries)}')
            continue
        inner = ",\n".join(f"  {json.dumps(name)}: {_lines(entry)}" for name, entry in entries.items())
        lines.append(f'"{part}": {{\n{inner}\n}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _lines(entry: Any) -> str:
    if not isinstance(entry, dict):
        return json.dumps(entry)
    inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in entry.items())
    return f"{{\n{inner}\n  }}"


if __name__ == "__main__":
    FILE.write_text(text())
