"""The API as a user writes it; type-checked, never run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, TypeVar, assert_type

from runtara_trio import (
    JSON,
    Backend,
    CheckpointResult,
    Codec,
    InstanceInfo,
    Operator,
    Outcome,
    RuntaraSdk,
    SdkConfig,
    SharedBackend,
    Signal,
    SignalType,
    current_sdk,
    open_backend,
    open_runtara,
)

T = TypeVar("T")


@dataclass
class Receipt:
    cents: int


class Backwards:
    def encode(self, value: Any, /) -> bytes:
        return JSON.encode(value)[::-1]

    def decode(self, data: bytes, type: type[T], /) -> T:
        return JSON.decode(data[::-1], type)


async def program() -> None:
    codec: Codec = Backwards()
    async with open_runtara(
        "sqlite:///orders.db",
        instance_id="order-7",
        tenant_id="shop",
        stop_signals=(signal.SIGTERM, signal.SIGHUP),
        codec=codec,
    ) as sdk:
        assert_type(sdk, RuntaraSdk)
        assert_type(current_sdk(), RuntaraSdk)
        result = await sdk.checkpoint("charge", Receipt(1999))
        assert_type(result, CheckpointResult)
        assert_type(result.decode(Receipt), Receipt)
        assert_type(result.existing_state, bytes | None)
        assert_type(result.should_cancel, bool)
        assert_type(await sdk.get_checkpoint("charge"), bytes | None)
        assert_type(await sdk.get_checkpoint("charge", Receipt), Receipt | None)
        async with sdk.step("charge") as nothing:
            assert_type(nothing, None)
            assert_type(sdk.step_key, str)
        await sdk.sleep(3600, "cooling-off", state={"any": "thing"})
        assert_type(await sdk.wait_for_signal("approve"), bytes)
        assert_type(await sdk.poll_signal(), Signal | None)
        await sdk.acknowledge_signal(SignalType.PAUSE)
        await sdk.acknowledge_signal("pause", acknowledged=False)
        assert_type(await sdk.get_status(), InstanceInfo)
        await sdk.completed(Receipt(1999))
    assert_type(sdk.outcome, Outcome | None)


async def operate() -> None:
    async with open_backend(SdkConfig(store=":memory:", lease_ms=1000)) as backend:
        assert_type(backend, SharedBackend)
        seam: Backend = backend
        operator = Operator(seam)
        assert_type((await operator.cancel("order-7")).text, str)
        assert_type((await operator.list()).next, int | None)
        assert_type(await operator.prune(86400), int)
        async with open_runtara(backend, signals="manual") as sdk:
            await sdk.check_cancelled()
        async with open_runtara(backend, signals="none"):  # type: ignore[arg-type]  # pyright: ignore
            pass
