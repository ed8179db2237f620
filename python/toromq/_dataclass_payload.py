"""Dataclasses as types of a job's data and result: made from what JSON has for their fields, and turned into it."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from toromq._bridge import to_json
from toromq._guards import is_collection, is_mapping
from toromq._payload import ANY_JSON
from toromq.errors import SerializationError


class DataclassPayload:
    """A dataclass, with what the standard library knows of its fields."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    def encode(self, value: Any, place: str) -> bytes:
        made = value if isinstance(value, self._kind) else _built(self._kind, value, place)
        plain = _plain(made)
        # Dataclasses are not looked at when they are made.
        _built(self._kind, plain, place)
        return to_json(plain, place)

    def decode(self, stored: bytes, place: str) -> Any:
        return _built(self._kind, ANY_JSON.decode(stored, place), place)


_COLLECTIONS: tuple[type[Any], ...] = (list, tuple, set, frozenset)
_ISO: Mapping[type[Any], Callable[[str], Any]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    UUID: UUID,
}


def _plain(value: Any) -> Any:
    """What JSON has for a value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, timedelta):
        return value / timedelta(milliseconds=1)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if is_mapping(value):
        return {key: _plain(item) for key, item in value.items()}
    if is_collection(value):
        return [_plain(item) for item in value]
    return value


def _built(kind: Any, value: Any, place: str) -> Any:
    """A value of a type from what JSON has for it."""
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, place)
    if origin is Literal:
        if any(value == allowed and type(value) is type(allowed) for allowed in arguments):
            return value
        raise SerializationError(f"{place}: got {value!r}; allowed are {', '.join(map(repr, arguments))}")
    if origin is not None and not isinstance(origin, type):
        # Annotated, ClassVar and their like say more about the type that they hold.
        return _built(arguments[0], value, place) if arguments else value
    if kind is None or kind is type(None):
        if value is None:
            return None
        raise _wrong(value, "null", place)
    plain: type[Any] = origin or kind
    if isinstance(plain, type) and dataclasses.is_dataclass(plain):
        return _dataclass(plain, value, place)
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        try:
            return plain(value)
        except ValueError:
            allowed = ", ".join(repr(member.value) for member in plain)
            raise SerializationError(f"{place}: got {value!r}; allowed are {allowed}") from None
    if plain in _ISO:
        try:
            return _ISO[plain](value)
        except (TypeError, ValueError):
            raise _wrong(value, f"the text of a {plain.__name__}", place) from None
    if plain is timedelta:
        return timedelta(milliseconds=_built(float, value, place))
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(plain, type) and issubclass(plain, _COLLECTIONS):
        return _collection(plain, arguments, value, place)
    if isinstance(plain, type) and issubclass(plain, Mapping):
        return _mapping(arguments, value, place)
    if plain in (str, int, float, bool):
        if type(value) is not plain:
            raise _wrong(value, plain.__name__, place)
        return value
    if isinstance(plain, type) and not isinstance(value, plain):
        raise _wrong(value, plain.__name__, place)
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    refused: list[str] = []
    for kind in kinds:
        try:
            return _built(kind, value, place)
        except SerializationError as error:
            refused.append(str(error))
    # For Optional the mistake in the value says more than that it is not None.
    raise SerializationError(next((words for words in refused if "allowed is null" not in words), refused[0]))


def _dataclass(kind: type[Any], value: Any, place: str) -> Any:
    if isinstance(value, kind):
        return value
    if not is_mapping(value):
        raise _wrong(value, f"an object with the fields of {kind.__name__}", place)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in fields:
            raise SerializationError(f"{place}.{name}: {kind.__name__} has no such field")
    hints = get_type_hints(kind)
    for name, field in fields.items():
        if name not in value and field.default is field.default_factory is dataclasses.MISSING:
            raise SerializationError(f"{place}.{name}: missing")
    return kind(**{name: _built(hints[name], item, f"{place}.{name}") for name, item in value.items()})


def _collection(kind: type[Any], arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    if not is_collection(value):
        raise _wrong(value, "a list", place)
    items = list(value)
    kinds: list[Any]
    is_tuple: bool = issubclass(kind, tuple)
    if is_tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(items):
            raise SerializationError(f"{place}: got {len(items)} items; allowed are {len(arguments)}")
        kinds = list(arguments)
    else:
        kinds = [arguments[0] if arguments else Any] * len(items)
    built = [_built(one, item, f"{place}[{n}]") for n, (one, item) in enumerate(zip(kinds, items, strict=True))]
    return built if kind is list else kind(built)


def _mapping(arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    if not is_mapping(value):
        raise _wrong(value, "an object", place)
    of = arguments[1] if len(arguments) == 2 else Any
    return {key: _built(of, item, f"{place}.{key}") for key, item in value.items()}


def _wrong(value: Any, allowed: str, place: str) -> SerializationError:
    return SerializationError(f"{place}: got {type(value).__name__}; allowed is {allowed}")
