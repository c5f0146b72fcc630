"""What instances were started with."""

from __future__ import annotations

import pytest

from runtara_trio import CodecError, RuntaraSdk, open_client, open_worker, workflow

from ..helpers.places import Place
from ..helpers.support import block, sql


@workflow
async def told(sdk: RuntaraSdk, number: int) -> list[int]:
    return await sdk.input(list[int]) or []


async def test_the_input_of_a_run(place: Place) -> None:
    """Its arguments; of what a runtara-environment has started, what it was given."""

    async with (
        open_worker(place.backend, [told], stop_signals=()),
        open_client(place.backend, tenant_id="t") as client,
    ):
        assert await (await client.start(told, 7, id="run")).result() == [7]
    async with block(place.backend) as sdk:
        value = "x'7b7d'" if "sqlite" in place.url or "memory" in place.url else "'\\x7b7d'::bytea"
        await sql(place.backend, f"UPDATE instances SET input = {value} WHERE instance_id = 'i'")
        assert await sdk.input(dict) == {}
        assert await sdk.input() == b"{}"
        with pytest.raises(CodecError, match="the input of instance 'i'"):
            await sdk.input(int)
