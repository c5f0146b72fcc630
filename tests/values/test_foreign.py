"""Values of other libraries in JSON: which come back equal, which are refused before the work."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, Union
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np
import numpy.typing
import pydantic
import pydantic.dataclasses
import pytest

from runtara_trio.codec import JSON, decode, encode
from runtara_trio.errors import CodecError


class Money(pydantic.BaseModel):
    cents: int = pydantic.Field(ge=0)
    currency: str = "EUR"


class Line(pydantic.BaseModel):
    name: str = pydantic.Field(alias="lineName")
    price: Money
    at: dt.datetime | None = None
    tags: set[str] = set()
    amount: Decimal = Decimal(1)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> Decimal:
        return self.amount * self.price.cents


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    at: dt.date
    id: uuid.UUID


class Node(pydantic.BaseModel):
    name: str
    children: list[Node] = []


class Card(pydantic.BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(pydantic.BaseModel):
    kind: Literal["cash"] = "cash"
    paid: Money


Payment = Annotated[Card | Cash, pydantic.Field(discriminator="kind")]
Names = pydantic.RootModel[list[str]]


@pydantic.dataclasses.dataclass
class Checked:
    cents: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class Order:
    lines: list[Line]
    paid: Card | Cash | None = None


@attrs.define
class Address:
    town: str
    payment: Card | Cash | None = None


class Parcel(msgspec.Struct):
    to: Address
    what: Card | Cash | int
    next: Parcel | None = None


class Point(NamedTuple):
    x: int
    y: float


class Size(TypedDict):
    width: int


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


LINE = Line(
    lineName="a", price=Money(cents=5), at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), tags={"x"}
)

EQUAL: dict[str, tuple[Any, Any]] = {
    "a model of pydantic": (Line, LINE),
    "one that is strict": (Strict, Strict(at=dt.date(2026, 1, 1), id=uuid.UUID(int=7))),
    "one inside of itself": (Node, Node(name="a", children=[Node(name="b")])),
    "a root model": (Names, Names(["a"])),
    "models in a list": (list[Line], [LINE, LINE]),
    "in a dict": (dict[str, Money], {"a": Money(cents=1)}),
    "in a tuple": (tuple[Money, int], (Money(cents=1), 2)),
    "a union of models": (Card | Cash, Cash(paid=Money(cents=1))),
    "with a discriminator": (Payment, Card(number="7")),
    "of a model and a number": (Money | int, 7),
    "of a model and None": (Money | None, None),
    "of a model and a struct": (Union[Parcel, Money], Money(cents=3)),  # noqa: UP007
    "such unions in a list": (list[Card | Cash], [Card(number="1"), Cash(paid=Money(cents=2))]),
    "in a dict of lists": (dict[int, list[Card | int]], {3: [Card(number="1"), 4]}),
    "in a tuple of any length": (tuple[Card | Cash, ...], (Card(number="1"),)),
    "in a dataclass": (Order, Order([LINE], Cash(paid=Money(cents=2)))),
    "in an attrs class": (Address, Address("Bonn", Card(number="1"))),
    "in a struct, and below": (
        Parcel,
        Parcel(Address("Bonn"), 5, Parcel(Address("Ulm", Card(number="2")), Card(number="3"))),
    ),
    "a dataclass of pydantic": (Checked, Checked(5)),
    "such ones in a list": (Sequence[Checked], [Checked(5)]),
    "a struct": (Address, Address("Bonn")),
    "a named tuple": (Point, Point(1, 2.5)),
    "a TypedDict": (Size, {"width": 3}),
    "an enum": (Colour, Colour.RED),
    "an IntEnum": (Level, Level.LOW),
    "a Decimal": (Decimal, Decimal("1.10")),
    "a UUID": (uuid.UUID, uuid.UUID(int=5)),
    "a datetime": (dt.datetime, dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)),
    "one without a zone": (dt.datetime, dt.datetime(2026, 5, 4)),
    "one of a named zone": (
        dt.datetime,
        dt.datetime(2026, 5, 4, tzinfo=ZoneInfo("Europe/Berlin")),
    ),
    "a date": (dt.date, dt.date(2026, 5, 4)),
    "a time": (dt.time, dt.time(5, 4)),
    "a timedelta": (dt.timedelta, dt.timedelta(days=1, microseconds=5)),
    "bytes": (bytes, b"\xff"),
    "bytes in a list": (list[bytes], [b"\xff"]),
    "a set": (set[int], {1, 2}),
    "a frozenset": (frozenset[str], frozenset("a")),
    "a dict with numbers as keys": (dict[int, str], {1: "a"}),
    "a path": (Path, Path("/tmp/a b")),
    "a pure path": (PurePosixPath, PurePosixPath("a/b")),
    "paths in a set": (set[Path], {Path("a")}),
    "a float64 of numpy": (np.float64, np.float64(1.5)),
    "an int64": (np.int64, np.int64(-3)),
    "a bool": (np.bool_, np.bool_(True)),
    "a float64 where a float is wanted": (float, np.float64(1.5)),
    "a datetime64 to microseconds": (
        np.datetime64,
        np.datetime64("2026-01-01T00:00:00", "us"),
    ),
}
"""By what it is: the type that is asked for, and a value."""


@pytest.mark.parametrize("what", EQUAL)
def test_what_comes_back_equal(what: str) -> None:
    wanted, value = EQUAL[what]
    JSON.check(wanted)  # type: ignore[attr-defined]
    found = decode(JSON, "it", encode(JSON, "it", value), wanted)
    assert found == value
    assert type(found) is (float if wanted is float else type(value))


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.array([1.5, math.nan, math.inf]),
        np.array([], dtype=np.uint8),
        np.array([1 + 2j]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
    ],
    ids=str,
)
def test_arrays_come_back_equal(value: Any) -> None:
    found = decode(JSON, "it", encode(JSON, "it", value), np.ndarray)
    assert found.dtype == value.dtype
    assert np.array_equal(found, value, equal_nan=value.dtype.kind == "f")
    found.flags.writeable = True


class Unknown: ...


class Creds(pydantic.BaseModel):
    user: str
    password: pydantic.SecretStr


class Holder(pydantic.BaseModel):
    of: list[Creds] = []


class Excluded(pydantic.BaseModel):
    shown: int = 0
    kept: int = pydantic.Field(0, exclude=True)


class Told(pydantic.BaseModel):
    """A secret that is saved, as the program has said how."""

    password: pydantic.SecretStr

    @pydantic.field_serializer("password")
    def _plain(self, value: pydantic.SecretStr) -> str:
        return value.get_secret_value()


class Event(pydantic.BaseModel):
    kind: str = pydantic.Field(alias="type")
    type: str = pydantic.Field(alias="event_type")


@pydantic.dataclasses.dataclass
class WithBytes:
    data: bytes


class Camel(msgspec.Struct, rename="camel"):
    of_what: Card | Cash
    how_many: int = 0


class First(msgspec.Struct, tag=True):
    x: Card | int


class Second(msgspec.Struct, tag=True):
    x: Card | int


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: Card | int = 0


class Open(msgspec.Struct, forbid_unknown_fields=True):
    b: Card | int = 0


@attrs.define
class Private:
    _hidden: Card | int


class Keys(TypedDict, total=False):
    a: Card | int


MORE_EQUAL: list[tuple[Any, Any]] = [
    (Told, Told(password=pydantic.SecretStr("x"))),
    (Event, Event(type="K", event_type="T")),
    (list[Event], [Event(type="K", event_type="T")]),
    (WithBytes, WithBytes(b"hello")),
    (Card | bytes, b"hello"),
    (Card | WithBytes, WithBytes(b"hello")),
    (Camel, Camel(Card(number="1"), 7)),
    (First | Second, Second(5)),
    (Closed | Open, Open(5)),
    (Keys, {"a": 5}),
    (Keys, {}),
    (np.typing.NDArray[np.float64], None),
    (Path | None, Path("a")),
    (Path | Money, Path("a")),
    (str | Card, "a"),
    (Card | str, "a"),
]


@pytest.mark.parametrize(("wanted", "value"), MORE_EQUAL, ids=str)
def test_more_that_comes_back_equal(wanted: Any, value: Any) -> None:
    if value is None:
        value = np.array([1.5])
    JSON.check(wanted)  # type: ignore[attr-defined]
    found = decode(JSON, "it", encode(JSON, "it", [value]), list[wanted])[0]
    assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "wanted",
    [
        *(Unknown, list[Unknown], Unknown | None, Card | Unknown, complex, range),
        *(Creds, list[Creds], Holder, Excluded, Card | Excluded, Private),
        *(Path | str, str | Path, Path | dt.datetime, np.bool_ | str, np.float64 | float),
        *(np.complex64, np.bytes_, np.timedelta64),
    ],
    ids=str,
)
def test_what_is_refused_before_the_work(wanted: Any) -> None:
    with pytest.raises(TypeError):
        JSON.check(wanted)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "value",
    [
        *(Unknown(), np.complex64(1), np.array([Unknown()]), np.float64(math.nan), Money),
        *(Excluded(kept=1), Holder(), np.ma.MaskedArray([1], mask=[True])),
    ],
    ids=str,
)
def test_what_has_no_bytes(value: Any) -> None:
    with pytest.raises(CodecError):
        encode(JSON, "it", value)


@pytest.mark.parametrize(
    ("wanted", "data", "words"),
    [
        (Money, b'{"cents":"x"}', "cents: Input should be a valid integer"),
        (Line, b'{"lineName":"a","price":{"cents":-1}}', r"price\.cents: .* greater than or equal"),
        (list[Line], b'[{"lineName":"a"}]', r"price: Field required - at `\$\[0\]`"),
        (Order, b'{"lines":[{"lineName":"a"}]}', r"\.lines.*price: Field required"),
        (Order, b'{"lines":[],"paid":{"kind":"cash"}}', r"at \.paid: .*paid: Field required"),
        (Parcel, b'{"to":{"town":"x"},"what":"y"}', r"at \.what: "),
        (Parcel, b'{"to":{"town":"x"}}', "what"),
        (list[Checked], b'[{"cents":1},{"cents":0}]', r"at \[1\]: .*greater than 0"),
        (Card | Cash, b'{"kind":"cheque"}', "kind"),
        (np.int64, b"1.5", "1.5 is no int64"),
        (np.bool_, b'"false"', "'false' is no bool"),
        (np.float64, b"null", "None is no float64"),
        (Camel, b"{}", "of_what"),
        (dict[str, Card | int], b"[]", "Expected `object`, got `array`"),
        (tuple[Card | int, int], b"[1]", "it has 1 items, not 2"),
    ],
)
def test_errors_name_the_field(wanted: Any, data: bytes, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        decode(JSON, "it", data, wanted)


def test_a_field_is_found_by_its_alias_and_by_its_name() -> None:
    for name in ("lineName", "name"):
        data = msgspec.json.encode({name: "a", "price": {"cents": 5}})
        assert decode(JSON, "it", data, Line).name == "a"


def test_the_table_of_the_documentation_is_this_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "values.md").read_text()
    table = page.partition("| --- | --- |\n")[2].partition("\n\n")[0]
    assert [row.split("|")[1].strip() for row in table.splitlines()] == list(EQUAL)
