"""What earlier runs have stored is read ahead: in pages, as far as the id that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from runtara_trio import NotSupported
from runtara_trio.engine import stored
from runtara_trio.engine.stored import Stored, area_of
from runtara_trio.ids import failure_id, wake_id
from runtara_trio.messages import ReadCheckpoints

from ..helpers.reads import Reads


def numbered(count: int, size: int = 1) -> Reads:
    """The ids ``n/0``, ``n/1`` and so on, whose states have ``size`` bytes."""
    return Reads({f"n/{number}": bytes([number]) * size for number in range(count)})


async def find(past: Stored, checkpoint_id: str) -> bytes | None:
    """Look for an id that the run has had nothing to do with."""
    return await past.find(checkpoint_id, touched=False)


@pytest.mark.parametrize(
    ("checkpoint_id", "area"),
    [
        ("durable::pay::1", "durable::"),
        ("durable::pay/1::2", "durable::"),
        ("orders/7/pay", "orders/"),
        ("/x", "/"),
        ("alone", None),
        ("", None),
        (failure_id("durable::pay::1"), "runtara_trio::failure::"),
        (failure_id("durable::pay::1", 2), "runtara_trio::failure-2::"),
        (wake_id("orders/7/nap"), None),
    ],
)
def test_what_is_read_along_with_an_id(checkpoint_id: str, area: str | None) -> None:
    assert area_of(checkpoint_id) == area


async def test_of_a_new_instance_nothing_is_read_but_what_this_run_saved() -> None:
    reads = numbered(1)
    past = Stored("i", reads.request)
    past.nothing_yet()
    assert await find(past, "n/0") is None
    assert reads.asked() == []
    assert await past.find("n/0", touched=True) == b"\0"
    assert reads.asked() == ["n/0"]


async def test_one_read_serves_all_ids_that_begin_alike() -> None:
    reads = numbered(10)
    past = Stored("i", reads.request)
    assert [await find(past, f"n/{number}") for number in range(10)] == [
        bytes([number]) for number in range(10)
    ]
    (message,) = reads.requests
    assert message == ReadCheckpoints(
        instance_id="i",
        prefix="n/",
        after=None,
        limit=stored.PAGE,
        most_bytes=stored.PAGE_BYTES,
    )


async def test_pages_are_read_as_far_as_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PAGE", 2)
    reads = numbered(8)
    past = Stored("i", reads.request)
    assert await find(past, "n/3") == b"\3"
    assert reads.asked() == ["n/>", "n/>n/1"]
    assert await find(past, "n/0") == b"\0"
    assert reads.asked() == []
    assert await find(past, "n/4") == b"\4"
    assert reads.asked() == ["n/>n/3"]


async def test_what_a_page_does_not_have_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two ids that were read, and behind the last one of all."""
    monkeypatch.setattr(stored, "PAGE", 2)
    reads = numbered(3)
    past = Stored("i", reads.request)
    await find(past, "n/1")
    reads.asked()
    assert await find(past, "n/0.5") is None
    assert reads.asked() == []
    assert await find(past, "n/9") is None
    assert reads.asked() == ["n/>n/1"]
    assert await find(past, "n/99") is None
    assert reads.asked() == []


async def test_each_outermost_path_is_read_by_itself() -> None:
    reads = Reads({"a/1": b"1", "a/2": b"2", "b/1": b"3", "durable::f::1": b"4"})
    past = Stored("i", reads.request)
    for name in ("a/1", "b/1", "durable::f::1", "a/2"):
        assert await find(past, name) == reads.states[name]
    assert reads.asked() == ["a/>", "b/>", "durable::>"]


async def test_an_id_without_a_path_is_read_alone() -> None:
    reads = Reads({"alone": b"1", "along": b"2"})
    past = Stored("i", reads.request)
    assert await find(past, "alone") == b"1"
    assert await find(past, "nobody") is None
    assert reads.asked() == ["alone", "nobody"]


async def test_an_id_that_this_run_has_touched_is_read_anew() -> None:
    """It may have been saved since the page was read."""
    reads = numbered(1)
    past = Stored("i", reads.request)
    assert await find(past, "n/1") is None
    reads.states["n/1"] = b"saved"
    assert await past.find("n/1", touched=True) == b"saved"
    assert reads.asked() == ["n/>", "n/1"]


async def test_a_state_is_let_go_once_it_is_handed_out() -> None:
    """The run has touched the id then; who asks ahead of the run says that it must stay."""
    reads = numbered(2)
    past = Stored("i", reads.request)
    assert await past.find("n/0", touched=False, keep=True) == b"\0"
    assert await find(past, "n/0") == b"\0"
    assert await find(past, "n/0") is None
    assert reads.asked() == ["n/>"]


async def test_beyond_the_most_bytes_it_is_one_read_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PAGE", 1)
    monkeypatch.setattr(stored, "MOST_BYTES", 10)
    reads = numbered(6, size=8)
    past = Stored("i", reads.request)
    assert await find(past, "n/5") == b"\5" * 8
    assert reads.asked() == ["n/>", "n/>n/0", "n/5"]
    assert await find(past, "n/4") == b"\4" * 8
    assert reads.asked() == ["n/4"]


async def test_beyond_the_most_bytes_what_is_kept_is_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "PAGE", 1)
    monkeypatch.setattr(stored, "MOST_BYTES", 10)
    reads = numbered(6, size=8)
    past = Stored("i", reads.request)
    assert await find(past, "n/5") == b"\5" * 8
    reads.asked()
    assert await find(past, "n/0") == b"\0" * 8
    assert await find(past, "n/1") == b"\1" * 8
    assert reads.asked() == []
    assert await find(past, "n/2") == b"\2" * 8  # there is room again
    assert reads.asked() == ["n/>n/1"]


async def test_what_is_handed_out_makes_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PAGE", 1)
    monkeypatch.setattr(stored, "MOST_BYTES", 10)
    reads = numbered(6, size=8)
    past = Stored("i", reads.request)
    for number in range(6):
        assert await find(past, f"n/{number}") == bytes([number]) * 8
    assert reads.asked() == ["n/>", *(f"n/>n/{number}" for number in range(5))]


async def test_where_no_page_can_be_read_it_is_one_read_an_id() -> None:
    """An instance protocol has no such call; that is found out once."""
    reads = numbered(2)
    refused: list[Any] = []

    async def request(message: Any) -> Any:
        if isinstance(message, ReadCheckpoints):
            refused.append(message)
            raise NotSupported("no bulk reads")
        return await reads.request(message)

    past = Stored("i", request)
    assert await find(past, "n/0") == b"\0"
    assert await find(past, "n/1") == b"\1"
    assert await find(past, "durable::f::1") is None
    assert len(refused) == 1
    assert reads.asked() == ["n/0", "n/1", "durable::f::1"]


async def test_a_failed_read_is_told_and_tried_again() -> None:
    reads = numbered(1)
    troubles = [ConnectionError("no answer")]

    async def request(message: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return await reads.request(message)

    past = Stored("i", request)
    with pytest.raises(ConnectionError, match="no answer"):
        await find(past, "n/0")
    assert await find(past, "n/0") == b"\0"


async def test_tasks_that_ask_at_once_share_the_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PAGE", 2)
    reads = numbered(6)
    past = Stored("i", reads.request)
    found: dict[int, bytes | None] = {}

    async def look(number: int) -> None:
        found[number] = await find(past, f"n/{number}")

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(look, number)
    assert found == {number: bytes([number]) for number in range(6)}
    assert reads.asked() == ["n/>", "n/>n/1", "n/>n/3"]
