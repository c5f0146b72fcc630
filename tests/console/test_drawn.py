"""From steps to bars, from payloads to HTML, from a schema to a form: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara_trio import StepInfo, StepKind, StepOutcome
from runtara_trio.codec import JSON, schema_of
from runtara_trio.console import forms, payloads
from runtara_trio.console.compare import pairs
from runtara_trio.console.timeline import bound, nested, timeline

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGIN + timedelta(seconds=100)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def step(name: str, begin: float, end: float | None, **more: Any) -> StepInfo:
    outcome = more.pop("outcome", None if end is None else StepOutcome.DONE)
    return StepInfo(
        step=name,
        kind=more.pop("kind", StepKind.CALL),
        run=more.pop("run", 1),
        worker=more.pop("worker", "w"),
        started_at=at(begin),
        ended_at=None if end is None else at(end),
        outcome=outcome,
        **more,
    )


# ---- the timeline


def test_steps_stand_behind_what_they_are_inside_of() -> None:
    steps = [
        step("a", 0, 9),
        step("b", 1, 3),
        step("a1", 2, 4, parent="a"),
        step("a11", 2, 3, parent="a1"),
        step("a2", 5, 6, parent="a"),
        step("lost", 6, 7, parent="unknown"),
        step("self", 7, 8, parent="self"),
    ]
    found = [(row.step.step, row.depth) for row in nested(steps)]
    assert found == [
        *[("a", 0), ("a1", 1), ("a11", 2), ("a2", 1)],
        *[("b", 0), ("lost", 0), ("self", 0)],
    ]


def test_the_axis_of_what_runs_stays_for_a_while() -> None:
    steps = [step("a", 0, 30), step("b", 30, None)]
    lines = [timeline(steps, at(seconds), runs=True) for seconds in (61, 75, 89)]
    assert {one.seconds for one in lines} == {90}
    assert [round(one.now or 0) for one in lines] == [68, 83, 99]
    assert timeline(steps[:1], NOW, runs=False).seconds == 30


@given(st.floats(0.001, 1e9))
def test_an_axis_has_room(seconds: float) -> None:
    assert seconds <= bound(seconds) <= max(0.1, 2.5 * seconds)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=8))
def test_no_step_is_left_out(times: list[tuple[float, float]]) -> None:
    steps = [step(f"s{number}", begin, begin + took) for number, (begin, took) in enumerate(times)]
    assert len(timeline(steps, NOW, runs=False).rows) == len(steps)


@pytest.mark.parametrize(
    ("last", "kind", "name"),
    [
        (StepOutcome.LOST, StepKind.CALL, "its process had died"),
        (StepOutcome.UNLOADED, StepKind.SLEEP, "asleep, unloaded"),
        (StepOutcome.UNLOADED, StepKind.SIGNAL, "waiting, unloaded"),
        (StepOutcome.INTERRUPTED, StepKind.CALL, "paused or stopped"),
        (StepOutcome.DONE, StepKind.CALL, "not running"),
    ],
)
def test_gaps_between_runs_are_named(last: StepOutcome, kind: StepKind, name: str) -> None:
    steps = [
        step("a", 0, 10, outcome=last, kind=kind),
        step("b", 90, 100, run=5, worker="other"),
    ]
    line = timeline(steps, NOW, runs=False)
    (gap,) = line.gaps
    assert (gap.name, round(gap.x), round(gap.width)) == (name, 10, 80)
    assert [one.name for one in line.marks] == ["run 2 on other"]


def test_a_part_of_the_time() -> None:
    steps = [step("a", 0, 10), step("b", 40, 60), step("c", 90, 100)]
    window = (at(45).timestamp(), at(50).timestamp())
    line = timeline(steps, NOW, runs=False, window=window)
    assert [row.step.step for row in line.rows] == ["b"]
    assert (line.begin, line.seconds) == (at(45), 5)


def test_where_two_part() -> None:
    left = [step("a", 0, 1), step("b", 1, 2), step("c", 2, 3)]
    right = [step("a", 0, 1), step("x", 1, 2), step("c", 2, 9)]
    found = [(one.left and one.left.step, one.right and one.right.step, one.parts)
             for one in pairs(left, right)]  # fmt: skip
    only = "only on one side"
    assert found == [
        ("a", "a", ""), ("b", None, only), (None, "x", only), ("c", "c", "other time"),
    ]  # fmt: skip


def test_many_children_of_equal_names() -> None:
    """Each is compared with its own, in no time that grows with the fourth power."""
    both = [
        [step(f"{side}-{n}/charge", n, n + 1, kind=StepKind.CHILD) for n in range(1500)]
        for side in "ab"
    ]
    found = pairs(*both)
    assert [one.left and one.left.step for one in found] == [one.step for one in both[0]]
    assert all(one.left and one.right and not one.parts for one in found)


# ---- payloads


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "not set"),
        (b"", "empty"),
        (b'{"a":[1,true,null,"<b>"]}', '<span class="s">"&lt;b&gt;"</span>'),
        (b"plain <i>", "<pre>plain &lt;i&gt;</pre>"),
        (b"\xff\x00AB", "ff 00 41 42"),
        (b"[" * 5000, "<pre>[[["),
    ],
)
def test_payloads(data: bytes | None, words: str) -> None:
    assert words in payloads.shown(data)


def test_what_was_looked_for_is_marked_and_open() -> None:
    data = msgspec.json.encode({"a": {"b": {"c": {"d": "Find me"}}}, "e": {"f": {"g": 1}}})
    page = payloads.shown(data, "find")
    assert "<mark>Find</mark> me" in page
    assert page.count("<details open>") == 5
    assert page.count("<details>") == 1


def test_a_large_value_makes_a_small_page() -> None:
    one = {"name": "n", "of": {"no": 1, "text": "x" * 50}}
    value: list[Any] = [*[one] * 9_000, {"of": {"text": "a Needle"}}]
    data = msgspec.json.encode(value)
    page = payloads.shown(data)
    assert len(page) < 500_000 < len(data)
    assert "<pre>[" in payloads.shown(msgspec.json.encode(value * 2))
    assert "more</li>" in page
    assert "<mark>Needle</mark>" in payloads.shown(data, "needle")
    text = ("x" * 100_000 + "Needle").encode()
    assert "100,006 characters" not in payloads.shown(text)
    assert "80,006 characters more" in payloads.shown(text)
    found = payloads.shown(text, "needle")
    assert "99,500 characters before" in found
    assert "<mark>Needle</mark>" in found


def test_steps_inside_of_each_other_are_shown() -> None:
    steps = [step("a", 0, 1, parent="b"), step("b", 0, 1, parent="a"), step("c", 0, 1)]
    assert sorted(row.step.step for row in nested(steps)) == ["a", "b", "c"]


@given(st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_no_value_makes_markup(value: Any) -> None:
    page = str(payloads.shown(msgspec.json.encode(value), "a"))
    names = "div", "details", "details open", "summary", "ul", "li", "mark", "p", "span"
    for tag in [*(f"<{name}" for name in names), *(f"</{name}>" for name in names)]:
        page = page.replace(tag, "")
    assert "<" not in page


# ---- forms


class Inner(msgspec.Struct):
    x: int


@dataclass
class Wanted:
    yes: bool
    name: str
    count: int
    share: float
    how: Literal["quick", "slow"]
    inner: Inner
    note: str | None = None
    limit: int = 7


def test_a_form_of_a_type_and_back() -> None:
    asks = schema_of(JSON, Wanted)
    found = {one.label: (one.kind, one.required) for one in forms.fields(asks) or []}
    assert found == {
        "yes": ("boolean", True),
        "name": ("text", True),
        "count": ("integer", True),
        "share": ("number", True),
        "how": ("choice", True),
        "inner": ("json", True),
        "note": ("text", False),
        "limit": ("integer", False),
    }
    typed = {
        "f.yes": "true", "f.name": "Ann\r\nB", "f.count": "3", "f.share": "0.5",
        "f.how": '"slow"', "f.inner": '{"x": 1}', "f.note": "", "f.limit": "",
    }  # fmt: skip
    payload = forms.payload_of(asks, typed)
    assert msgspec.json.decode(payload, type=Wanted) == Wanted(
        True, "Ann\nB", 3, 0.5, "slow", Inner(1)
    )
    for name, text, words in (
        ("f.count", "3.5", "whole number"),
        ("f.count", "true", "whole number"),
        ("f.share", "x", "not JSON"),
        ("f.how", '"other"', "not one of"),
        ("f.inner", "{", "not JSON"),
        ("f.count", "", "give a value"),
        ("f.yes", "", "give a value"),
        ("f.yes", "maybe", "true or false"),
    ):
        with pytest.raises(forms.Invalid, match=words):
            forms.payload_of(asks, {**typed, name: text})


@pytest.mark.parametrize(
    ("wanted", "typed", "payload"),
    [
        (bool, "false", b"false"),
        (int, "5", b"5"),
        (str, "hello", b'"hello"'),
        (Literal["a", "b"], '"b"', b'"b"'),
    ],
)
def test_a_form_of_one_value(wanted: Any, typed: str, payload: bytes) -> None:
    assert forms.payload_of(schema_of(JSON, wanted), {"f.": typed}) == payload


def test_what_no_form_is_made_of() -> None:
    assert forms.fields(None) is None
    assert schema_of(JSON, bytes) is None
    assert forms.payload_of(None, {"payload": "as it is"}) == b"as it is"
    lists = schema_of(JSON, list[int])
    assert forms.fields(lists) is None
    assert forms.payload_of(lists, {"payload": "[1]"}) == b"[1]"
    with pytest.raises(forms.Invalid, match="not JSON"):
        forms.payload_of(lists, {"payload": "[1"})
