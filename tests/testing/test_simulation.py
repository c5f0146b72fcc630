"""``simulate``: what it finds, what it shows, and that it is the same again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest
import trio

from runtara_trio import ConfigError, InstanceStatus, RuntaraSdk, SdkError, durable, workflow
from runtara_trio.testing import (
    FleetFault,
    Simulated,
    SimulationFailed,
    effect,
    simulate,
)

from ..helpers.fleets import MIXED, RATED, SHOP, order

SEEDS = 25
"""Of each scenario. ``nox -s simulate`` takes thousands."""


def as_it_should_be(simulated: Simulated) -> None:
    """Of those that ended well, everything is there, once."""
    for one in simulated.instances.values():
        if one.status is InstanceStatus.COMPLETED and one.workflow in EXPECTED:
            assert one.output == EXPECTED[one.workflow], one


EXPECTED = {
    "maps": b"15",
    "receives": b'["a letter","a letter","a letter"]',
    "writes": b"[1,1,1,1]",
}


def test_maps_messages_and_transactions() -> None:
    ended: list[InstanceStatus] = []

    def check(simulated: Simulated) -> None:
        as_it_should_be(simulated)
        ended.extend(one.status for one in simulated.instances.values())

    simulate(**MIXED, seeds=range(SEEDS), check=check)
    assert ended.count(InstanceStatus.COMPLETED) > len(ended) / 2


@pytest.mark.parametrize("scenario", [SHOP, RATED], ids=["places", "rate"])
def test_nothing_is_found(scenario: dict[str, Any]) -> None:
    simulated: list[Simulated] = []
    last = simulate(**scenario, seeds=range(SEEDS), check=simulated.append)
    assert last is simulated[-1]
    assert [one.seed for one in simulated] == list(range(SEEDS))
    assert {fault.fault for one in simulated for fault in one.planned} == set(FleetFault)
    undisturbed = next(one for one in simulated if not one.planned)
    statuses = {one.instance_id: one.status for one in undisturbed.instances.values()}
    assert statuses["order-0"] is InstanceStatus.COMPLETED
    assert statuses["mail-6"] is InstanceStatus.FAILED
    assert undisturbed.instances["order-0"].output == b'"order 0"'
    assert undisturbed.effects["order 0 2"] == "did 2"


def digest(seed: int) -> str:
    """Of all that happened with a seed."""
    found = simulate(**SHOP, seeds=[seed])
    return hashlib.sha256(
        "\n".join([*map(str, found.planned), *found.timeline]).encode()
    ).hexdigest()


def test_the_same_again() -> None:
    """Also in another process, whose strings have other hashes."""
    seed = next(n for n in range(100) if len(simulate(**SHOP, seeds=[n]).planned) > 5)
    here = digest(seed)
    assert digest(seed) == here
    program = f"from tests.testing.test_simulation import digest; print(digest({seed}))"
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


@durable
async def charges(name: str) -> str:
    effect(None, f"charged {name}")  # of a service without keys
    await trio.sleep(1)
    return name


@workflow
async def careless(sdk: RuntaraSdk, name: str) -> str:
    return await charges(name)


def charged_once(simulated: Simulated) -> None:
    if len(simulated.effects) > 2:
        raise ValueError(f"charged {len(simulated.effects)} times")


def test_a_mistake_of_the_user() -> None:
    """An effect without a key is made twice where a worker dies behind it, and before the save."""
    given: dict[str, Any] = {
        "workflows": [careless],
        "starts": [(careless, ("ann",)), (careless, ("bob",))],
        "check": charged_once,
    }
    with pytest.raises(SimulationFailed) as failed:
        simulate(**given)
    simulated = failed.value.simulated
    assert len(simulated.planned) == 1, "the fewest faults that show it"
    text = str(failed.value)
    assert text.startswith(f"seed {simulated.seed}: the check: ValueError: charged 3 times")
    assert f"\n  {simulated.planned[0]}\n" in text
    assert "ClaimRuns -> careless-0 (lease " in text
    assert text.endswith(f"simulate(…, seeds=[{simulated.seed}])")
    with pytest.raises(SimulationFailed) as again:
        simulate(**given, seeds=[simulated.seed])
    assert str(again.value) == text


def test_a_run_that_waits_for_ever() -> None:
    """What it waits for has a name; and one that works for ever does not end."""

    @workflow
    async def waits(sdk: RuntaraSdk) -> bytes:
        return await sdk.wait_for_signal("never sent")

    found = simulate([waits], [(waits, ())], seeds=range(3), faults=[])
    assert found.instances["waits-0"].status is InstanceStatus.RUNNING

    @workflow
    async def hangs(sdk: RuntaraSdk) -> None:
        await trio.sleep_forever()

    with pytest.raises(SimulationFailed, match="every run goes on: 'hangs-0' works, and does not"):
        simulate([hangs], [(hangs, ())], seeds=range(3), faults=[])


def test_a_day_of_a_fleet() -> None:
    @workflow
    async def day(sdk: RuntaraSdk, name: str) -> str:
        for hour in range(24):
            await sdk.sleep(3600, f"hour {hour}")
        return name

    found = simulate([day], [(day, (name,)) for name in "abc"], seeds=[1])
    assert found.seconds > 86_400
    assert {one.output for one in found.instances.values()} == {b'"%c"' % c for c in b"abc"}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"starts": []}, "give workflows, and starts of them"),
        ({"workers": 0}, "workers must be a whole number from 1, not 0"),
        ({"slots": True}, "slots must be a whole number from 1, not True"),
        ({"faults": ["earthquake"]}, "faults must be some of a worker dies, .*not .'earthquake'."),
        ({"seeds": []}, "seeds is empty"),
        ({"starts": [(len, ())]}, r"starts\[0\] must begin with a workflow"),
    ],
)
def test_invalid_arguments(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        simulate(**{"workflows": [order], "starts": [(order, ("a",))], "seeds": [0], **given})


async def test_not_inside_of_trio() -> None:
    with pytest.raises(SdkError, match="call it from a plain function"):
        simulate([order], [(order, ("a",))])
