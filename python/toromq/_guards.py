"""What kind a value is, for type checkers too: after `isinstance` they take the items of a mapping for unknown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it is a dict or like one."""
    # Most are plain dicts; to ask for any mapping takes longer than all else that is done with one.
    return type(value) is dict or isinstance(value, Mapping)


def is_tuple(value: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether it is a tuple, named or not."""
    return isinstance(value, tuple)


def is_collection(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether it is what JSON has a list for."""
    return isinstance(value, list | tuple | set | frozenset)


def is_path(value: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Whether it is a text or a path."""
    return isinstance(value, str | os.PathLike)
