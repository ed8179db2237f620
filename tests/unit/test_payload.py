"""Types of a job's data: what goes in comes out, and what is not valid is refused with its place."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest

from toromq._payload import ANY_JSON, payload_type
from toromq.errors import ConfigurationError, SerializationError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    article: str
    amount: int = 1


@dataclass
class Order:
    number: int
    lines: list[Line]
    customer: str | None = None
    colour: Colour = Colour.RED
    kind: Literal["web", "phone"] = "web"
    total: float = 0.0
    at: datetime | None = None
    day: date | None = None
    within: timedelta = timedelta(0)
    key: UUID | None = None
    place: tuple[int, int] = (0, 0)
    tags: set[str] = field(default_factory=set)
    more: dict[str, list[int]] = field(default_factory=dict)
    note: Annotated[str, "free text"] = ""
    anything: Any = None


class PydanticOrder(pydantic.BaseModel):
    number: int
    customer: str = pydantic.Field(default="nobody", alias="customerName")


class MsgspecOrder(msgspec.Struct):
    number: int
    customer: str = "nobody"


ORDER = Order(
    7,
    [Line("screw", 100), Line("nut")],
    colour=Colour.BLUE,
    kind="phone",
    total=3.5,
    at=datetime(2035, 7, 3, 10, 30, tzinfo=UTC),
    day=date(2035, 7, 3),
    within=timedelta(seconds=1.5),
    key=UUID(int=5),
    place=(3, 4),
    tags={"a"},
    more={"x": [1, 2]},
    note="n",
    anything=[None, {"deep": True}],
)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Line, Line("screw", 3), b'{"article":"screw","amount":3}'),
        (PydanticOrder, PydanticOrder(number=1, customerName="x"), b'{"number":1,"customerName":"x"}'),
        (pydantic.TypeAdapter(list[int]), [1, 2], b"[1,2]"),
        (MsgspecOrder, MsgspecOrder(1, "x"), b'{"number":1,"customer":"x"}'),
        (None, {"any": [1, None]}, b'{"any":[1,null]}'),
    ],
    ids=["dataclass", "pydantic", "adapter", "msgspec", "none"],
)
def test_a_value_goes_in_and_comes_out(kind: Any, value: Any, text: bytes) -> None:
    payload = payload_type("data_type", kind)
    assert payload.encode(value, "data") == text
    assert payload.decode(text, "data") == value


def test_a_dataclass_with_everything_comes_out_as_it_went_in() -> None:
    payload = payload_type("data_type", Order)
    again = payload.decode(payload.encode(ORDER, "data"), "data")
    assert again == ORDER
    assert (type(again.total), type(again.place), type(again.lines[0])) == (float, tuple, Line)


@pytest.mark.parametrize(
    ("kind", "given", "made"),
    [
        (Line, {"article": "screw"}, Line("screw")),
        (PydanticOrder, {"number": 1, "customerName": "x"}, PydanticOrder(number=1, customerName="x")),
        (MsgspecOrder, {"number": 1}, MsgspecOrder(1)),
    ],
    ids=["dataclass", "pydantic", "msgspec"],
)
def test_what_a_value_can_be_made_from_is_taken_too(kind: Any, given: Any, made: Any) -> None:
    payload = payload_type("data_type", kind)
    assert payload.decode(payload.encode(given, "data"), "data") == made


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Line, {"amount": 1}, "data.article: missing"),
        (Line, {"article": 1}, "data.article: got int; allowed is str"),
        (Line, {"article": "a", "amount": True}, "data.amount: got bool; allowed is int"),
        (Line, {"article": "a", "amounts": 1}, "data.amounts: Line has no such field"),
        (Line, [1], "data: got list; allowed is an object with the fields of Line"),
        (Line, Line(5), "data.article: got int; allowed is str"),  # type: ignore[arg-type]
        (Order, {"number": 1, "lines": [{"article": None}]}, "data.lines[0].article: got NoneType; allowed is str"),
        (Order, {"number": 1, "lines": {}}, "data.lines: got dict; allowed is a list"),
        (Order, {"number": 1, "lines": [], "colour": "green"}, "data.colour: got 'green'; allowed are 'red', 'blue'"),
        (Order, {"number": 1, "lines": [], "kind": "fax"}, "data.kind: got 'fax'; allowed are 'web', 'phone'"),
        (Order, {"number": 1, "lines": [], "at": "soon"}, "data.at: got str; allowed is the text of a datetime"),
        (Order, {"number": 1, "lines": [], "place": [1]}, "data.place: got 1 items; allowed are 2"),
        (Order, {"number": 1, "lines": [], "more": {"x": ["y"]}}, "data.more.x[0]: got str; allowed is int"),
        (Order, {"number": 1, "lines": [], "customer": 5}, "data.customer: got int; allowed is str"),
        (PydanticOrder, {"customerName": "x"}, "data: number: Field required"),
        (PydanticOrder, {"number": "x"}, "data: number: Input should be a valid integer"),
        (PydanticOrder, PydanticOrder.model_construct(number="x"), "data: number: Input should be a valid integer"),
        (pydantic.TypeAdapter(list[int]), ["x"], "data: 0: Input should be a valid integer"),
        (MsgspecOrder, {"number": "x"}, "data: Expected `int`, got `str` - at `$.number`"),
        (MsgspecOrder, MsgspecOrder("x"), "data: Expected `int`, got `str` - at `$.number`"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_valid_is_refused_with_its_place(kind: Any, given: Any, words: str) -> None:
    with pytest.raises(SerializationError) as refusal:
        payload_type("data_type", kind).encode(given, "data")
    assert str(refusal.value).startswith(words)


def test_a_refusal_does_not_show_the_values_of_a_model() -> None:
    with pytest.raises(SerializationError) as refusal:
        payload_type("data_type", PydanticOrder).encode({"number": "secret"}, "data")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("kind", [Line, PydanticOrder, MsgspecOrder, None], ids=str)
def test_text_that_is_no_json_is_refused(kind: Any) -> None:
    with pytest.raises(SerializationError, match="the stored data"):
        payload_type("data_type", kind).decode(b"{", "the stored data")


@pytest.mark.parametrize("given", [dict, int, "Order", Line("x"), object()], ids=["dict", "int", "text", "line", "any"])
def test_what_is_no_type_of_data_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"data_type: got .*; allowed are a pydantic model"):
        payload_type("data_type", given)


def test_no_type_takes_whatever_is_json() -> None:
    assert payload_type("data_type", None) is ANY_JSON
