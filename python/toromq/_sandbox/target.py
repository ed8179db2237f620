"""Where a sandboxed processor is, in a module or in a file, and the types of its jobs; finding and importing them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from toromq._payload import PayloadType, payload_type
from toromq.errors import ConfigurationError

_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# The module that a file becomes. Under its own name it could be taken for another, as a file redis.py.
_FILE_MODULE: Final = "__processor__"
_FORMS: Final = "'package.module:function', 'path/to/file.py' (its function process) or 'path/to/file.py:function'"


class Target(NamedTuple):
    """A function in a module, or in a file with an absolute path; the other of the two is empty."""

    module: str
    file: str
    function: str

    def __str__(self) -> str:
        """As it could be given."""
        return f"{self.file or self.module}:{self.function}"


class LoadError(Exception):
    """The processor could not be imported."""


def target_of(given: str | os.PathLike[str]) -> Target:
    """Read what was given for a processor, and refuse what can be seen to be wrong without importing it.

    Raises:
        ConfigurationError: it has another form, or there is no such file or module.
    """
    text = os.fspath(given)
    if not isinstance(text, str):
        raise ConfigurationError(f"processor: got {given!r}; allowed are a function or the text {_FORMS}")
    place, _, function = text.rpartition(":")
    if text.endswith(".py"):
        place, function = text, "process"
    if not _DOTTED.fullmatch(function):
        raise ConfigurationError(f"processor: got {given!r}; allowed are a function or the text {_FORMS}")
    if place.endswith(".py"):
        file = Path(place).absolute()
        if not file.is_file():
            raise ConfigurationError(f"processor: got {given!r}, but there is no file {str(file)!r}")
        return Target("", str(file), function)
    if not _DOTTED.fullmatch(place):
        raise ConfigurationError(f"processor: got {given!r}; allowed are a function or the text {_FORMS}")
    if place == "__main__":
        raise ConfigurationError(
            f"processor: got {given!r}, but in a child process __main__ is another module; give the path of the file"
        )
    if not _exists(place):
        raise ConfigurationError(f"processor: got {given!r}, but there is no module {place!r}")
    return Target(place, "", function)


def _exists(module: str) -> bool:
    """Whether a module can be found; unlike importlib.util.find_spec this imports no package on the way."""
    path = None
    found = ""
    for part in module.split("."):
        found = f"{found}.{part}" if found else part
        if found in sys.modules:
            path = getattr(sys.modules[found], "__path__", None)
            continue
        if found.count(".") and path is None:
            return False
        specs = (finder.find_spec(found, path) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def type_name(option: str, given: Any) -> str:
    """The name under which a child can import a type of jobs; empty for None.

    Raises:
        ConfigurationError: it has none.
    """
    if given is None:
        return ""
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    if not isinstance(given, type) or module == "__main__" or not _DOTTED.fullmatch(f"{module}.{name}"):
        raise ConfigurationError(
            f"{option}: got {given!r}, which no child process can import; allowed is a class at the top of a module "
            "other than __main__"
        )
    return f"{module}:{name}"


def load(target: Target) -> tuple[Callable[[Any], Any], bool]:
    """Import the processor, and say whether it is async.

    Raises:
        LoadError: it could not be imported, for the reason given.
    """
    found = _load(target)
    if not callable(found):
        raise LoadError(f"cannot import {str(target)!r}: it is {found!r}, and no function")
    call = getattr(found, "__call__", None)  # noqa: B004 - an object may have an async __call__
    return found, inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(call)


def load_type(name: str) -> PayloadType:
    """Import a type of jobs by what `type_name` gave.

    Raises:
        LoadError: it could not be imported, for the reason given.
    """
    module, _, within = name.partition(":")
    return payload_type("", _load(Target(module, "", within)) if name else None)


def _load(target: Target) -> Any:
    try:
        found: Any = _module(target)
    except (Exception, SystemExit) as error:
        what = f"the file {target.file!r}" if target.file else f"the module {target.module!r}"
        raise LoadError(f"cannot import {what}: {type(error).__name__}: {error}") from error
    for name in target.function.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise LoadError(f"cannot import {str(target)!r}: {error}") from error
    return found


def _module(target: Target) -> Any:
    if target.module:
        return importlib.import_module(target.module)
    # What lies beside a file can be imported from it, as when it is run; but it hides nothing the parent would import.
    folder = os.path.dirname(target.file)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(_FILE_MODULE, target.file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for it there.
    sys.modules[_FILE_MODULE] = module
    spec.loader.exec_module(module)
    return module
