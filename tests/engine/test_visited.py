"""Which ids a run has had to do with, and which of the stored ones it has not."""

from __future__ import annotations

import pytest

from runtara_trio.engine import visited
from runtara_trio.engine.visited import Visited
from runtara_trio.ids import (
    deadline_id,
    failure_id,
    inside_id,
    retry_id,
    revived_id,
    signal_id,
    wake_id,
)
from runtara_trio.messages import ReadCheckpoints

from ..helpers.reads import Reads


def visits(*ids: str) -> Visited:
    """What a run has noted that asked for these."""
    noted = Visited()
    for one in ids:
        noted.add(one)
    return noted


def stored(*ids: str) -> Reads:
    return Reads(dict.fromkeys(ids, b"state"))


async def missed(noted: Visited, *ids: str) -> set[str]:
    """What a run has missed of these ids."""
    found, _ = await noted.missed("i", stored(*ids).request)
    return found


def test_an_id_is_new_once() -> None:
    noted = Visited()
    assert not noted.has("a")
    assert noted.add("a") is False
    assert noted.has("a")
    assert noted.add("a") is True
    assert noted.add("b") is False
    assert noted.warns


def test_of_too_many_ids_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then every id may have been there, and nothing is said to be missed."""
    monkeypatch.setattr(visited, "MOST", 2)
    noted = visits("a", "b")
    assert noted.warns
    assert not noted.has("c")
    assert noted.add("c") is True
    assert noted.has("never seen")
    assert noted.add("never seen") is True
    assert not noted.warns


def test_a_run_that_can_miss_nothing_still_notes_its_ids() -> None:
    noted = visits("a")
    noted.nothing_missed()
    assert not noted.warns
    assert noted.has("a")
    assert not noted.has("b")


async def test_what_is_stored_and_was_not_asked_for_is_missed() -> None:
    assert await missed(visits("a", "c"), "a", "b", "d") == {"b", "d"}
    assert await missed(visits(), "a") == {"a"}
    assert await missed(visits("a")) == set()


@pytest.mark.parametrize(
    "record",
    [
        wake_id("nap"),
        signal_id("nap"),
        deadline_id("nap"),
        failure_id("nap"),
        failure_id("nap", 3),
        retry_id("nap", 2),
    ],
)
async def test_a_record_counts_for_the_id_that_it_is_stored_for(record: str) -> None:
    assert await missed(visits("nap"), record) == set()
    assert await missed(visits("other"), record) == {"nap"}


async def test_an_id_that_looks_like_an_attempt_counts_for_itself_too() -> None:
    assert await missed(visits("pay::retry::1"), "pay::retry::1") == set()


async def test_records_of_the_sdks_own_are_not_missed() -> None:
    assert await missed(visits(), revived_id(1), inside_id("durable::f::1")) == set()


async def test_durable_calls_whose_insides_are_stored_are_named() -> None:
    reads = stored(
        "durable::f::1", inside_id("durable::f::1"), inside_id("durable::g::2"), wake_id("nap")
    )
    assert await visits("nap").missed("i", reads.request) == (
        {"durable::f::1"},
        {"durable::f::1", "durable::g::2"},
    )


async def test_the_ids_are_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their states, which nobody looks at."""
    monkeypatch.setattr(visited, "PAGE", 2)
    reads = stored("a", "b", "c", "d", "e")
    found, _ = await visits("b", "e").missed("i", reads.request)
    assert found == {"a", "c", "d"}
    assert reads.requests == [
        ReadCheckpoints(instance_id="i", after=after, limit=2, ids_only=True)
        for after in (None, "b", "d")
    ]
