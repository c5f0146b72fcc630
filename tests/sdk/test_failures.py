"""A final failure of a durable call is saved, and a replay goes the same way."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    DurableError,
    InstanceFinished,
    NonRetryable,
    Operator,
    RuntaraSdk,
    SharedBackend,
    StoreError,
    durable,
)
from runtara_trio.ids import failure_id

from ..helpers.places import Place
from ..helpers.support import block, block_of


class Declined(NonRetryable):
    pass


class Coded(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code


class Awkward(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class WithDefault(Exception):
    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@durable(max_retries=0)
async def fails(what: str) -> str:
    RAN.append(what)
    raise _ERRORS[what]


_ERRORS: dict[str, Exception] = {
    "declined": Declined("card declined"),
    "key": KeyError("order"),
    "os": FileNotFoundError(2, "No such file"),
    "os with a name": FileNotFoundError(2, "No such file", "receipt.txt"),
    "coded": Coded(7, "lost"),
    "plain": ValueError(),
    "numbers": ValueError(1, 2.5, None),
    "slow": trio.TooSlowError("too slow"),
    "nul": ValueError("a\0b \ud800"),
    "group": ExceptionGroup("two", [ValueError("one"), ExceptionGroup("in", [Declined("two")])]),
    "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
}


async def replay(backend: Any, what: str, **options: Any) -> list[BaseException]:
    """What a call raises: twice in one run, and in a replay."""
    raised: list[BaseException] = []
    for _ in range(2):
        async with block(backend, **options) as sdk:
            for _ in range(2):
                try:
                    await fails(what)
                except Exception as exc:
                    raised.append(exc)
            await sdk.suspended()
    return raised


@pytest.mark.parametrize("what", [name for name in _ERRORS if name != "unicode"])
async def test_the_same_is_raised_again(memory: SharedBackend, what: str) -> None:
    first, *others = await replay(memory, what)
    assert first is _ERRORS[what]
    assert len(others) == 3
    assert [what] == RAN
    for other in others:
        assert type(other) is type(first)
        if what == "nul":
            assert str(other) == "a\\x00b \\ud800"
        else:
            assert str(other) == str(first)


@pytest.mark.parametrize(
    "error",
    [
        Coded(7, "lost"),
        Awkward(code=7),
        WithDefault("no", code=5),
        FileNotFoundError(2, "No such file", "receipt.txt"),
        KeyError("order"),
        ValueError(1, None, [2.5]),
    ],
)
async def test_all_of_it_comes_back(memory: SharedBackend, error: Exception) -> None:
    error.retry_after = 30  # type: ignore[attr-defined]

    @durable(max_retries=0)
    async def f() -> None:
        raise error

    async with block(memory) as sdk:
        with pytest.raises(type(error)):
            await f()
        await sdk.suspended()
    async with block(memory):
        with pytest.raises(type(error)) as caught:
            await f()
    again = caught.value
    assert again is not error
    assert (str(again), again.args) == (str(error), error.args)
    attributes = {name: value for name, value in vars(again).items() if name != "__notes__"}
    assert attributes == vars(error)
    if isinstance(error, OSError):
        assert (again.errno, again.filename) == (2, "receipt.txt")  # type: ignore[attr-defined]


async def test_arguments_and_parts_come_back(memory: SharedBackend) -> None:
    coded = (await replay(memory, "coded"))[-1]
    assert isinstance(coded, Coded)
    assert (coded.code, coded.args) == (7, (7, "lost"))
    group = (await replay(memory, "group"))[-1]
    assert isinstance(group, ExceptionGroup)
    assert isinstance(group.exceptions[0], ValueError)
    assert isinstance(group.exceptions[1].exceptions[0], Declined)  # type: ignore[attr-defined]


async def test_what_cannot_be_made_again_is_a_durable_error(
    memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = await replay(memory, "unicode")
    assert isinstance(first, UnicodeDecodeError)
    for other in others:
        assert isinstance(other, DurableError)
        assert (other.type, other.message) == ("UnicodeDecodeError", str(first))
        assert "in fails" in other.traceback
    assert [record.event for record in caplog.records if record.levelno == logging.WARNING] == [
        "failure_changes"
    ]


@pytest.mark.parametrize("named", [True, False])
async def test_a_class_that_is_defined_again(memory: SharedBackend, named: bool) -> None:
    """In a function, or after a reload: the newest is meant, or the one that is named."""
    ran = []
    for _ in range(2):

        class Refused(Exception):
            pass

        refused = Refused

        @durable(max_retries=0, raises=(Declined, Refused) if named else ())
        async def pay() -> None:
            ran.append(1)
            raise refused("no")  # noqa: B023

        async with block(memory) as sdk:
            with pytest.raises(Refused, match="no"):
                await pay()
            await sdk.suspended()
    assert ran == [1]


async def test_a_function_without_a_text(autojump_clock: MockClock, memory: SharedBackend) -> None:
    ran = []

    @durable(max_retries=2)
    async def f() -> str:
        ran.append(1)
        if len(ran) < 3:
            raise Unspeakable
        return "said"

    async with block(memory):
        assert await f() == "said"


async def test_a_program_takes_the_same_branch(place: Place) -> None:
    async def program(sdk: RuntaraSdk) -> str:
        try:
            await fails("declined")
        except Declined:
            return "refused"
        return "shipped"

    for _ in range(2):
        async with block(place.backend) as sdk:
            assert await program(sdk) == "refused"
            await sdk.suspended()
    assert RAN == ["declined"]


@pytest.mark.core
async def test_revive_tries_it_again(place: Place) -> None:
    for number in (1, 2):
        with pytest.raises(Declined):
            async with block(place.backend, revive=number > 1):
                await fails("declined")
    assert RAN == ["declined"] * 2
    with pytest.raises(InstanceFinished):
        async with block(place.backend):
            raise AssertionError("it does not run")


async def test_a_nested_failure_is_the_outer_one_too(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    @durable(max_retries=1)
    async def outer() -> None:
        RAN.append("outer")
        await fails("declined")

    for _ in range(2):
        async with block(memory) as sdk:
            with pytest.raises(Declined):
                await outer()
            await sdk.suspended()
    assert RAN == ["outer", "declined"]


async def test_of_a_map_and_a_nursery(memory: SharedBackend) -> None:
    for _ in range(2):
        async with block(memory) as sdk:
            with pytest.raises(ExceptionGroup):
                async with sdk.map(fails, ["declined"]) as results:
                    async for _result in results:
                        pass
            with pytest.raises(ExceptionGroup):
                async with sdk.open_nursery() as nursery:
                    nursery.start_soon(fails, "key")
            await sdk.suspended()
    assert RAN == ["declined", "key"]


async def test_errors_of_the_sdk_are_not_saved(memory: SharedBackend) -> None:
    ran = []

    @durable(max_retries=0)
    async def f() -> str:
        ran.append(1)
        if len(ran) == 1:
            raise ExceptionGroup("with one in it", [StoreError("away")])
        return "back"

    async with block(memory) as sdk:
        with pytest.raises(ExceptionGroup):
            await f()
        assert await f() == "back"
        assert await sdk.get_checkpoint("durable::f::[]", str) == "back"


@pytest.mark.parametrize("retries", [0, 3])
async def test_what_a_cancelled_call_raises_is_not_saved(
    autojump_clock: MockClock, memory: SharedBackend, retries: int
) -> None:
    ran = []

    @durable(max_retries=retries)
    async def f() -> str:
        ran.append(1)
        if len(ran) > 1:
            return "done"
        try:
            await trio.sleep(100)
        except trio.Cancelled:
            raise ConnectionError("closed meanwhile") from None
        raise AssertionError("not cancelled")

    with trio.move_on_after(1), suppress(ConnectionError):
        async with block(memory):
            await f()
    async with block(memory) as sdk:
        assert await f() == "done"
        saved = (await Operator(memory).checkpoints("i")).checkpoints
        await sdk.suspended()
    assert [one.checkpoint_id for one in saved] == ["durable::f::[]"]


async def test_a_failure_in_a_thread_that_a_deadline_did_not_wait_for(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    ran = []

    @durable(max_retries=0)
    async def f() -> None:
        ran.append(1)
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        raise Declined("late")

    for _ in range(2):
        async with block(memory) as sdk:
            with pytest.raises(Declined):
                async with sdk.deadline("soon", 5):
                    await f()
            await sdk.suspended()
    assert ran == [1]


async def test_a_wrong_raises_is_refused() -> None:
    for wrong in (7, (ValueError, "x"), trio.Cancelled):
        with pytest.raises(Exception, match="raises of f must be an exception type"):

            @durable(raises=wrong)  # type: ignore[call-overload, untyped-decorator]
            async def f() -> None: ...


async def test_the_record_is_the_codecs(memory: SharedBackend) -> None:
    """What encrypts results encrypts what failed, too."""

    class Rot:
        def encode(self, value: Any) -> bytes:
            return bytes(byte ^ 1 for byte in msgspec.json.encode(value))

        def decode(self, data: bytes, type: Any) -> Any:
            return msgspec.json.decode(bytes(byte ^ 1 for byte in data), type=type)

    raised = await replay(memory, "declined", codec=Rot())
    assert [type(one) for one in raised] == [Declined] * 4
    async with block(memory, codec=Rot()) as sdk:
        state = await block_of(sdk).requests.find(failure_id("durable::fails::declined"))
        assert state is not None
        assert b"declined" not in state
