"""Python values to JSON text and back, compared with the standard library."""

import json
import math
import struct
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toromq._bridge import from_json, to_json
from toromq.errors import SerializationError

# Hypothesis leaves surrogates out of texts that must be encodable.
texts = st.text(st.characters(codec="utf-8"))
finite = st.floats(allow_nan=False, allow_infinity=False)
wide_integers = st.integers(-(2**200), 2**200)
scalars = st.none() | st.booleans() | st.integers() | wide_integers | finite | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=30
)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3
    HUGE = 2**70


class Plain(Enum):
    ONE = 1


class Celsius(float):
    """A float that has a text of its own."""

    def __repr__(self) -> str:
        return f"{float(self)} degrees"


@dataclass
class Order:
    number: int


class Point(NamedTuple):
    x: int
    y: int


def bits(number: float) -> bytes:
    return struct.pack(">d", number)


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from 1.0 and from True, and 0.0 from -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return bits(left) == bits(right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def refusal(value: Any, root: str = "data") -> str:
    with pytest.raises(SerializationError) as caught:
        to_json(value, root)
    return str(caught.value)


class TestRoundTrip:
    @given(values)
    def test_what_is_written_is_read_back_with_types_and_bits(self, value: Any) -> None:
        assert same(from_json(to_json(value)), value)

    @given(values)
    def test_the_stdlib_reads_what_is_written(self, value: Any) -> None:
        assert same(json.loads(to_json(value)), value)

    @given(values, st.booleans(), st.sampled_from([None, 1, 4]))
    def test_what_the_stdlib_writes_is_read(self, value: Any, ascii_only: bool, indent: int | None) -> None:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
        assert same(from_json(text.encode()), value)

    @given(st.integers(0, 2**64 - 1))
    @example(0x0000000000000001)
    @example(0x000FFFFFFFFFFFFF)
    @example(0x7FEFFFFFFFFFFFFF)
    def test_every_finite_float_keeps_its_bits(self, pattern: int) -> None:
        (number,) = struct.unpack(">d", pattern.to_bytes(8, "big"))
        if not math.isfinite(number):
            return
        assert bits(from_json(to_json(number))) == bits(number)
        assert bits(from_json(repr(number).encode())) == bits(number)

    @given(st.decimals(allow_nan=False, allow_infinity=False, places=40, min_value=-(10**9), max_value=10**9))
    @example(Decimal("0.1000000000000000055511151231257827021181583404541015625"))
    @example(Decimal("9007199254740993.00000000000000000000000000000000000001"))
    def test_long_decimals_are_rounded_as_python_rounds_them(self, number: Decimal) -> None:
        text = format(number, "f")
        assert bits(from_json(text.encode())) == bits(json.loads(text))

    @given(st.text())
    def test_text_that_the_stdlib_escapes_is_read_even_with_lone_surrogates(self, text: str) -> None:
        assert from_json(json.dumps(text).encode()) == text

    def test_nesting_up_to_the_limit_is_written_and_read(self) -> None:
        assert from_json(to_json(nested(512))) == nested(512)


class TestWriting:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ({"a": [1, 2.5, True, None], "b": {}}, '{"a":[1,2.5,true,null],"b":{}}'),
            ((1, ()), "[1,[]]"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (2**63 - 1, "9223372036854775807"),
            (-(2**63), "-9223372036854775808"),
            (2**63, "9223372036854775808"),
            ('a"b\\c/\b\f\n\r\t\x00\x1f\x7f', '"a\\"b\\\\c/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f"'),
            ("é€😀\u2028", '"é€😀\u2028"'),
            (Colour.RED, '"red"'),
            ({Colour.RED: Level.HIGH}, '{"red":3}'),
            (Level.HUGE, str(2**70)),
            (Celsius(20.5), "20.5"),
            (Point(1, 2), "[1,2]"),
            (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        ],
    )
    def test_values_have_one_text_without_blanks(self, value: Any, text: str) -> None:
        assert to_json(value).decode() == text

    @given(st.dictionaries(st.integers() | wide_integers | finite | st.booleans() | st.none(), st.integers()))
    def test_keys_that_are_not_text_are_written_as_the_stdlib_writes_them(self, value: dict[Any, int]) -> None:
        assert to_json(value).decode() == json.dumps(value, separators=(",", ":"))

    @given(texts)
    def test_text_is_escaped_as_the_stdlib_escapes_it(self, text: str) -> None:
        assert to_json(text).decode() == json.dumps(text, ensure_ascii=False)

    @given(st.integers(0, 40), st.sampled_from('"\\\n\x01é'))
    def test_a_character_to_escape_is_found_at_any_place(self, place: int, character: str) -> None:
        text = "x" * place + character + "y" * (40 - place)
        assert to_json(text).decode() == json.dumps(text, ensure_ascii=False)

    def test_a_value_may_stand_in_two_places(self) -> None:
        shared = [1]
        assert to_json([shared, shared, {"again": shared}]) == b'[[1],[1],{"again":[1]}]'


class TestRefusals:
    def test_the_message_begins_with_the_path(self) -> None:
        value = {"items": [{}, {}, {}, {"price": math.nan}]}
        assert refusal(value) == "data.items[3].price: NaN is not JSON; use None or a string"

    def test_the_path_begins_with_the_root_that_was_given(self) -> None:
        assert refusal(math.inf, "returnvalue") == "returnvalue: Infinity is not JSON; use None or a string"
        assert refusal((-math.inf,), "returnvalue") == "returnvalue[0]: -Infinity is not JSON; use None or a string"

    def test_keys_that_are_no_identifiers_are_quoted_in_the_path(self) -> None:
        assert refusal({"unit price": {7: math.nan}}).startswith('data["unit price"]["7"]: NaN')

    def test_a_long_path_is_cut(self) -> None:
        path, message = refusal({"k" * 1000: math.nan}).split(": ")
        assert path == "data." + "k" * 155 + "..."
        assert message.startswith("NaN")

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("a\ud800", "the text has a lone surrogate, which UTF-8 cannot hold"),
            ({"\udfff": 1}, "a key has a lone surrogate, which UTF-8 cannot hold"),
            ({(1, 2): 1}, "a key of type tuple is not JSON; use a str"),
            ({math.nan: 1}, "NaN is not JSON; use None or a string"),
            ([10**5000], "the integer has too many digits to be converted; use a string"),
            (nested(513), "the value is nested deeper than 512 levels"),
        ],
    )
    def test_values_outside_json_are_named(self, value: Any, message: str) -> None:
        assert refusal(value).endswith(f": {message}")

    @pytest.mark.parametrize(
        ("value", "name", "hint"),
        [
            (b"x", "bytes", "use bytes.decode(), or base64 for what is not text"),
            (bytearray(b"x"), "bytearray", "use bytes.decode(), or base64 for what is not text"),
            ({1}, "set", "use list(value)"),
            (frozenset({1}), "frozenset", "use list(value)"),
            (datetime(2026, 1, 1, tzinfo=UTC), "datetime", "use value.isoformat()"),
            (date(2026, 1, 1), "date", "use value.isoformat()"),
            (time(12), "time", "use value.isoformat()"),
            (timedelta(seconds=1), "timedelta", "use value.total_seconds()"),
            (UUID(int=1), "UUID", "use str(value)"),
            (Decimal(1), "Decimal", "use str(value)"),
            (Path("x"), "PosixPath", "use str(value)"),
            (Plain.ONE, "Plain", "use value.value"),
            (Order(1), "Order", "use dict, list, str, int, float, bool or None"),
            (iter([]), "list_iterator", "use dict, list, str, int, float, bool or None"),
        ],
    )
    def test_other_types_are_refused_with_a_way_out(self, value: Any, name: str, hint: str) -> None:
        name = type(value).__qualname__ if isinstance(value, Path) else name
        assert refusal({"it": value}) == f"data.it: a value of type {name} is not JSON; {hint}"

    def test_a_list_that_contains_itself_is_refused(self) -> None:
        value: list[Any] = [1]
        value.append(value)
        assert refusal(value) == "data[1]: the value contains itself; JSON has no references"

    def test_a_dict_that_contains_itself_further_down_is_refused(self) -> None:
        value: dict[str, Any] = {}
        value["a"] = {"b": (value,)}
        assert refusal(value) == "data.a.b[0]: the value contains itself; JSON has no references"


class TestReading:
    def test_a_lone_surrogate_from_another_client_is_read(self) -> None:
        assert from_json(b'{"a":"x\\ud800y"}') == {"a": "x\ud800y"}

    def test_of_equal_keys_the_last_wins(self) -> None:
        assert from_json(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}

    def test_nan_from_a_client_that_writes_it_is_read(self) -> None:
        assert math.isnan(from_json(b"NaN"))
        assert from_json(b"[-Infinity]") == [-math.inf]

    @pytest.mark.parametrize("text", ["-0", "-0.0", "1e5", "1E400", "-1e400", "1e-400", "0", " [ 1 , 2 ]\n", '"\\/"'])
    def test_numbers_and_blanks_are_read_as_the_stdlib_reads_them(self, text: str) -> None:
        assert same(from_json(text.encode()), json.loads(text))

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b" ",
            b"{",
            b"[1,]",
            b'{"a":1,}',
            b"{'a':1}",
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"nul",
            b'"a\nb"',
            b'"\\x"',
            b"1 2",
            b"[1] x",
            b'"a',
            b"\xef\xbb\xbf1",
            b'"\xff"',
            b"1\x00",
            b"\x001",
            b"undefined",
            b"1" * 5000,
        ],
    )
    def test_text_that_is_not_json_is_refused(self, text: bytes) -> None:
        with pytest.raises(SerializationError, match=r"^the text is not JSON: ") as caught:
            from_json(text)
        assert isinstance(caught.value.__cause__, ValueError)

    def test_text_nested_without_end_is_refused(self) -> None:
        with pytest.raises(SerializationError, match="nested too deep"):
            from_json(b"[" * 100_000)

    @given(st.text(st.sampled_from('[]{}",:0123456789.eE+-\\untrfalse \n'), max_size=20))
    def test_all_that_the_stdlib_refuses_is_refused_and_the_rest_reads_the_same(self, text: str) -> None:
        try:
            expected = json.loads(text)
        except ValueError:
            with pytest.raises(SerializationError):
                from_json(text.encode())
        else:
            assert same(from_json(text.encode()), expected)


# Some begin with others, some are too long to be remembered, some have escapes.
_KEYS = ["a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "é", 'q"', "", "k" * 32, "k" * 33, "k" * 63, "k" * 64, "k" * 65]
_WORDS = st.sampled_from(_KEYS) | st.text("xy", max_size=40)
_rows = st.lists(st.dictionaries(_WORDS, _WORDS | st.integers(0, 3), max_size=6), max_size=6)


class TestWhatIsRemembered:
    @given(st.lists(_rows, min_size=1, max_size=4), st.booleans())
    def test_what_was_read_before_changes_nothing(self, texts: list[Any], ascii_only: bool) -> None:
        for rows in texts:
            assert same(from_json(json.dumps(rows, ensure_ascii=ascii_only).encode()), rows)
            assert same(from_json(to_json(rows)), rows)

    def test_more_keys_than_are_remembered_are_read(self) -> None:
        for first in range(0, 40_000, 2_000):
            value = {f"key {number}": {"name": number, "kind": "x"} for number in range(first, first + 2_000)}
            assert same(from_json(to_json(value)), value)

    def test_strings_that_come_again_are_one_object(self) -> None:
        first, second = (from_json(b'["an unusual value","a \\"quoted\\" one"]') for _ in range(2))
        assert all(one is other for one, other in zip(first, second, strict=True))

    def test_keys_make_room_for_those_that_come_later(self) -> None:
        def is_one_object(number: int) -> bool:
            others = {f"{number} {other}": other for other in range(500)}
            text = to_json([{f"later {number}": 0}, others])
            first, second = (next(iter(from_json(text)[0])) for _ in range(2))
            return first is second

        assert any(map(is_one_object, range(100)))

    def test_what_the_collector_ends_in_the_middle_may_read_as_well(self) -> None:
        read: list[Any] = []

        class Ends:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                read.append(from_json(b'{"kind":"inner","of":[1]}'))

        value = [{"kind": str(number), "of": [number]} for number in range(5_000)]
        text = to_json(value)
        ends = [Ends() for _ in range(10)]
        del ends
        # Each dict that is made may let the collector run.
        assert same(from_json(text), value)
        assert read == [{"kind": "inner", "of": [1]}] * 10

    def test_threads_read_at_once(self) -> None:
        values = [[{f"{name}{number % 7}": str(number)} for number in range(500)] for name in "abcd"]

        def read(value: Any) -> bool:
            text = to_json(value)
            return all(same(from_json(text), value) for _ in range(50))

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, values))
