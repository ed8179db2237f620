"""Types of a job's data and result: whatever can be made from JSON and turned into it.

A type is taken by what it can do, so that none of the libraries is a dependency: pydantic models and type adapters by
their methods, msgspec's structs by their fields, dataclasses by the standard library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from toromq._bridge import from_json, to_json
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
        # What most processors return.
        return b"null" if value is None else to_json(value, place)

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
    if isinstance(given, type) and hasattr(given, "__dataclass_fields__"):
        # What it takes to look into one is only imported where there is one.
        from toromq._dataclass_payload import DataclassPayload

        return DataclassPayload(given)
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
