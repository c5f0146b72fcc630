"""Whose turn it is, without a database."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtara_trio.store.answers.turns import deal, ordered, share
from runtara_trio.store.structs import Lane


def lane(queue: str, tenant: str, key: str, *ids: str) -> tuple[Lane, list[str]]:
    return Lane(queue, tenant, key), list(ids)


def test_queues_take_turns_then_tenants_then_keys() -> None:
    lanes = [
        lane("mail", "ana", "", *(f"flood-{n}" for n in range(9))),
        lane("mail", "ben", "k1", "b1", "b2"),
        lane("mail", "ben", "k2", "b3"),
        lane("slow", "ana", "", "s1"),
    ]
    dealt, turns = deal(lanes, {}, 6)
    assert dealt == ["flood-0", "s1", "b1", "flood-1", "b3", "flood-2"]
    assert turns[()] == "mail"


def test_the_turn_goes_on_in_the_next_claim() -> None:
    served: list[str] = []
    turns: dict[tuple[str, ...], str] = {}
    for number in range(6):
        lanes = [lane("q", tenant, "", f"{tenant}{number}") for tenant in "abc"]
        dealt, turns = deal(lanes, turns, 1)
        served += dealt
    assert [one[0] for one in served] == ["a", "b", "c", "a", "b", "c"]


def test_what_is_kept_does_not_grow() -> None:
    turns: dict[tuple[str, ...], str] = {}
    for number in range(100):
        _, turns = deal([lane("q", f"tenant-{number}", "k", "i")], turns, 1)
    assert len(turns) <= 3


def test_order_and_shares() -> None:
    assert ordered("cab", "a") == ["b", "c", "a"]
    assert ordered("cab", None) == ["a", "b", "c"]
    assert ordered("ab", "z") == ["a", "b"]
    assert [share(10, 3), share(1, 5), share(5, 0)] == [4, 1, 5]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("qr"), st.sampled_from("ab"), st.sampled_from("kl")),
        st.integers(0, 4),
    ),
    st.integers(1, 10),
)
def test_no_run_is_dealt_twice_and_none_is_left_out(
    counts: dict[tuple[str, str, str], int], limit: int
) -> None:
    lanes = [
        lane(*path, *("".join(path) + str(n) for n in range(count)))
        for path, count in counts.items()
    ]
    dealt, _ = deal(lanes, {}, limit)
    everything = {one for _, ids in lanes for one in ids}
    assert len(dealt) == len(set(dealt)) == min(limit, len(everything))
    assert set(dealt) <= everything
    for path in counts:  # in the order of its lane
        of_lane = [one for one in dealt if one.startswith("".join(path))]
        assert of_lane == sorted(of_lane)
