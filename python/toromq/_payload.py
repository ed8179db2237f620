"""Types of a job's data and result: whatever can be made from JSON and turned into it.

A type is taken by what it can do, so that none of the libraries is a dependency: pydantic models and type adapters by
their methods, msgspec's structs by their fields, dataclasses by the standard library.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, Literal, Protocol, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

from toromq._bridge import from_json, to_json
from toromq._guards import is_collection, is_mapping
from toromq.errors import ConfigurationError, SerializationError


class PayloadType(Protocol):
    """How a value of one type becomes JSON text, and back. Both raise SerializationError that begins with `place`."""

    def encode(self, value: Any, place: str) -> bytes:
        """The JSON text of a value of the type, or of what one can be made from."""
        ...

    def decode(self, stored: bytes, place: str) -> Any:
        """The value of the type that a JSON text holds."""
        ...


class _AnyJson:
    """No type: what is JSON goes in and comes out."""

    def encode(self, value: Any, place: str) -> bytes:
        return to_json(value, place)

    def decode(self, stored: bytes, place: str) -> Any:
        try:
            return from_json(stored)
        except SerializationError as error:
            raise SerializationError(f"{place} is no JSON: {error}") from error


ANY_JSON: PayloadType = _AnyJson()


def payload_type(option: str, given: Any) -> PayloadType:
    """What stands behind a `data_type` or `result_type`.

    Raises:
        ConfigurationError: it is no type that can be turned into JSON and back.
    """
    if given is None:
        return ANY_JSON
    if all(callable(getattr(given, name, None)) for name in ("model_validate", "model_validate_json")):
        return _Pydantic(given, given.model_validate, given.model_validate_json, _dump_model)
    if all(callable(getattr(given, name, None)) for name in ("validate_python", "validate_json", "dump_json")):
        return _Pydantic(None, given.validate_python, given.validate_json, given.dump_json)
    if isinstance(given, type) and hasattr(given, "__struct_fields__"):
        return _Msgspec(given)
    if isinstance(given, type) and dataclasses.is_dataclass(given):
        return _Dataclass(given)
    raise ConfigurationError(
        f"{option}: got {given!r}; allowed are a pydantic model or TypeAdapter, a msgspec Struct, or a dataclass"
    )


def _dump_model(value: Any) -> bytes:
    # By the names that the model reads it back under. What is wrong in it is said when it is read back.
    return cast(str, value.model_dump_json(by_alias=True, warnings=False)).encode()


class _Pydantic:
    """A model of pydantic, or one of its type adapters."""

    def __init__(
        self,
        model: type[Any] | None,
        validate: Callable[[Any], Any],
        validate_json: Callable[[bytes], Any],
        dump: Callable[[Any], bytes],
    ) -> None:
        self._model = model
        self._validate = validate
        self._validate_json = validate_json
        self._dump = dump

    def encode(self, value: Any, place: str) -> bytes:
        try:
            made = value if self._model is not None and isinstance(value, self._model) else self._validate(value)
            # Models can be changed without being looked at, so what is stored is read back once.
            text = self._dump(made)
            self._validate_json(text)
        except ValueError as error:
            raise SerializationError(f"{place}: {_words_of(error)}") from error
        return text

    def decode(self, stored: bytes, place: str) -> Any:
        try:
            return self._validate_json(stored)
        except ValueError as error:
            raise SerializationError(f"{place}: {_words_of(error)}") from error


def _words_of(error: ValueError) -> str:
    """The mistakes pydantic found, each with its place, and without the values, which may be secret."""
    errors: Any = getattr(error, "errors", None)
    if not callable(errors):
        return str(error)
    mistakes = cast("list[Mapping[str, Any]]", errors(include_url=False, include_input=False))
    return "; ".join(f"{'.'.join(str(part) for part in one['loc']) or 'value'}: {one['msg']}" for one in mistakes)


class _Msgspec:
    """A Struct of msgspec."""

    def __init__(self, struct: type[Any]) -> None:
        # Whoever has a Struct has the library.
        self._msgspec: Any = importlib.import_module("msgspec")
        self._struct = struct
        self._decoder = self._msgspec.json.Decoder(struct)

    def encode(self, value: Any, place: str) -> bytes:
        try:
            made = value if isinstance(value, self._struct) else self._msgspec.convert(value, self._struct)
            text = cast(bytes, self._msgspec.json.encode(made))
            # Structs are not looked at when they are made.
            self._decoder.decode(text)
        except (self._msgspec.MsgspecError, TypeError) as error:
            raise SerializationError(f"{place}: {error}") from error
        return text

    def decode(self, stored: bytes, place: str) -> Any:
        try:
            return self._decoder.decode(stored)
        except self._msgspec.MsgspecError as error:
            raise SerializationError(f"{place}: {error}") from error


class _Dataclass:
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
