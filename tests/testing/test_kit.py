"""The test kit: it passes programs that are right, and finds planted mistakes."""

from __future__ import annotations

import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceStatus,
    NonRetryable,
    Operator,
    RuntaraSdk,
    SdkError,
    SignalRefused,
    current_sdk,
    durable,
)
from runtara_trio.testing import (
    BoundaryFailure,
    Case,
    Fault,
    Run,
    check_every_boundary,
    effect,
    memory_backend,
    run,
)

DAY = 86400


@durable
async def charge(order: str, cents: int) -> str:
    return effect(current_sdk().step_key, f"charged {cents}")


@durable
def pack(parcel: int) -> int:
    effect(current_sdk().step_key, parcel)
    return parcel


async def order(sdk: RuntaraSdk) -> list[object]:
    receipt = await charge("order-7", 1999)
    await sdk.sleep(DAY, "cooling-off")
    decision = await sdk.wait_for_signal("approve", timeout=30 * DAY)
    async with sdk.deadline("shipping", 3 * DAY) as scope:
        async with sdk.map(pack, [1, 2, 3], name="parcels") as results:
            parcels = sorted([parcel async for parcel in results])
    await sdk.custom_event("shipped", parcels)
    await sdk.checkpoint("done", parcels)
    return [receipt, decision, parcels, scope.cancelled_caught]


async def ana(operator: Operator) -> None:
    await trio.sleep(2 * DAY)
    await operator.send_signal("test", "approve", b"yes")


def test_a_program_that_is_right() -> None:
    seen: list[Run] = []
    undisturbed = check_every_boundary(order, seen.append, operator=ana)
    assert undisturbed.result == ["charged 1999", b"yes", [1, 2, 3], False]
    assert undisturbed.status is InstanceStatus.COMPLETED
    assert undisturbed.starts == 1
    assert undisturbed.boundaries[:5] == (
        "checkpoint 'durable::charge::[\"order-7\",1999]'",
        "sleep 'cooling-off'",
        "wait_for_signal 'approve'",
        "timeout 'approve'",
        "wait_for_signal 'approve', time 2",
    )
    assert undisturbed.boundaries[5] == "deadline 'shipping'"
    assert undisturbed.boundaries[-1] == "end"
    cases = [one.case for one in seen[1:]]
    assert cases == [
        Case(fault, at)
        for at in undisturbed.boundaries
        for fault in Fault
        if fault not in (Fault.DRAIN, Fault.TAKEOVER)
    ]
    for one in seen[1:]:
        assert one.case is not None
        again = one.case.fault in (Fault.CRASH_BEFORE, Fault.PAUSE, Fault.STOP)
        if again and one.case.boundary != "end":
            assert one.starts == 2, one.case
        if one.case.fault is Fault.CANCEL:
            assert one.status is InstanceStatus.CANCELLED, one.case


def test_every_run_of_the_kit_is_the_same() -> None:
    """Whichever task Trio lets run first."""

    async def program(sdk: RuntaraSdk) -> None:
        effect("charge", 1)
        await sdk.checkpoint("charged")
        effect("ship", 1)

    def runs() -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        check_every_boundary(program, lambda run: seen.append((str(run.case), len(run.effects))))
        return seen

    first = runs()
    assert all(runs() == first for _ in range(10))


class TestPlantedMistakes:
    """Each is found, at the boundary where it is, and fails alone by its name."""

    def found(self, program: object, *, operator: object = None) -> BoundaryFailure:
        with pytest.raises(BoundaryFailure) as caught:
            check_every_boundary(program, operator=operator)  # type: ignore[arg-type]
        name = str(caught.value.case)
        assert name in str(caught.value)
        assert f"only={name!r}" in str(caught.value)
        with pytest.raises(BoundaryFailure) as again:
            check_every_boundary(program, operator=operator, only=name)  # type: ignore[arg-type]
        assert again.value.case == caught.value.case
        return caught.value

    def test_an_effect_without_a_key(self) -> None:
        @durable
        async def charge() -> None:
            effect(None, "charged")

        async def program(sdk: RuntaraSdk) -> None:
            await charge()

        failure = self.found(program)
        assert failure.case == Case(Fault.CRASH_BEFORE, "checkpoint 'durable::charge::[]'")
        assert "one too many" in str(failure)

    def test_a_key_that_is_new_in_every_run(self) -> None:
        numbers = iter(range(1000))

        async def program(sdk: RuntaraSdk) -> None:
            effect(f"request-{next(numbers) % 7}", "charged")
            await sdk.checkpoint("charged")

        assert "is missing" in str(self.found(program))

    def test_an_effect_outside_a_step(self) -> None:
        """Done again, with what has changed meanwhile."""

        async def program(sdk: RuntaraSdk) -> None:
            now = trio.current_time()
            await sdk.sleep(DAY, "nap")
            effect("mail", f"sent at {now}")

        failure = self.found(program)
        assert failure.case.boundary == "end" or "undisturbed 'sent at 0.0'" in str(failure)

    def test_a_result_that_a_variable_keeps(self) -> None:
        async def program(sdk: RuntaraSdk) -> int:
            count = 0
            for number in range(3):
                if not (await sdk.checkpoint(f"n/{number}")).found:
                    count += 1
            return count

        failure = self.found(program)
        assert failure.case == Case(Fault.CRASH_AFTER, "checkpoint 'n/0'")
        assert "its result is 2, undisturbed 3" in str(failure)
        assert failure.run is not None
        assert (failure.run.result, failure.undisturbed.result) == (2, 3)

    def test_an_error_that_is_taken_for_an_end(self) -> None:
        async def program(sdk: RuntaraSdk) -> str:
            try:
                await sdk.custom_event("sent")
            except SdkError:
                return "failed"
            return "sent"

        failure = self.found(program)
        assert failure.case == Case(Fault.LOST_REPLY, "event 'sent'")

    def test_a_pause_in_the_middle_of_what_belongs_together(self) -> None:
        async def program(sdk: RuntaraSdk) -> None:
            await sdk.checkpoint("a")
            effect(None, "not saved anywhere")
            await sdk.checkpoint("b")

        assert self.found(program).case == Case(Fault.CRASH_BEFORE, "checkpoint 'b'")

    def test_a_clean_up_that_undoes_what_a_pause_only_stops(self) -> None:
        async def program(sdk: RuntaraSdk) -> None:
            try:
                await sdk.checkpoint("a")
                await sdk.sleep(DAY, "nap")
            except trio.Cancelled:
                effect("refund", "paid back")
                raise

        failure = self.found(program)
        assert failure.case.fault is Fault.PAUSE
        assert "'refund' ('paid back') is one too many" in str(failure)

    def test_a_program_that_hangs(self) -> None:
        async def program(sdk: RuntaraSdk) -> None:
            if (await sdk.checkpoint("a")).found:
                await sdk.wait_for_signal("never")

        failure = self.found(program)
        assert "TimeoutError: the program hangs" in str(failure)

    def test_what_only_the_check_sees(self) -> None:
        async def program(sdk: RuntaraSdk) -> None:
            effect("charge", 1)
            await sdk.checkpoint("charged")
            effect("ship", 1)

        def check(run: Run) -> None:
            assert len(run.effects) != 1, "charged, and not shipped"

        with pytest.raises(BoundaryFailure, match=r"the check fails.*charged, and not") as caught:
            check_every_boundary(program, check)
        assert caught.value.case.fault is Fault.CANCEL


def test_a_program_that_fails_fails_everywhere() -> None:
    @durable
    async def decline() -> None:
        effect(current_sdk().step_key, "asked")
        raise NonRetryable("declined")

    async def program(sdk: RuntaraSdk) -> None:
        await sdk.checkpoint("begun")
        await decline()

    with pytest.raises(NonRetryable, match="declined"):
        check_every_boundary(program)
    assert check_every_boundary(program, may_fail=True).error == "NonRetryable: declined"


def test_retries_are_boundaries() -> None:
    @durable(delay=60)
    async def flaky() -> int:
        attempts = effect("attempts", [])
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError
        return 7

    async def program(sdk: RuntaraSdk) -> int:
        return await flaky()

    undisturbed = run(program)
    assert [name for name in undisturbed.boundaries if "retry" in name] == [
        "retry 'durable::flaky::[], 1'",
        "sleep 'durable::flaky::[]::retry::1'",
        "retry 'durable::flaky::[], 2'",
        "sleep 'durable::flaky::[]::retry::2'",
    ]


def test_a_hold_is_resumed() -> None:
    undisturbed = check_every_boundary(order, operator=ana, on_pause="hold", faults=[Fault.PAUSE])
    assert undisturbed.result[2] == [1, 2, 3]


def test_the_parts_by_themselves() -> None:
    def same(sdk: RuntaraSdk) -> object:
        return sdk.checkpoint("a", 7)

    assert run(same).boundaries == ("checkpoint 'a'", "end")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="only='nothing' names no case; boundaries: checkpoint"):
        check_every_boundary(order, operator=ana, only="nothing")
    with pytest.raises(SdkError, match=r"effect\(\) is for programs"):
        effect("a", 1)
    with pytest.raises(ConfigError, match="on_pause"):
        run(order, on_pause="wait")
    with pytest.raises(SignalRefused):

        async def too_late(operator: Operator) -> None:
            await trio.sleep(1)
            await operator.send_signal("other", "approve", b"")

        run(order, operator=too_late)


def test_a_program_that_never_works() -> None:
    with pytest.raises(TypeError, match="await"):
        check_every_boundary(lambda sdk: 1)  # type: ignore[arg-type, return-value]

    async def program(sdk: RuntaraSdk) -> None:
        await sdk.checkpoint("a")

    for faults in ([], ["nonsense"]):
        with pytest.raises(ConfigError, match="faults"):
            check_every_boundary(program, faults=faults)  # type: ignore[arg-type]

    async def check(run: Run) -> None:
        raise AssertionError("never awaited")

    with pytest.raises(TypeError, match="check must not be async"):
        check_every_boundary(program, check)
    with pytest.raises(ConfigError, match="the test kit sets revive itself"):
        run(program, revive=True)


async def test_from_inside_trio_it_says_so() -> None:
    with pytest.raises(SdkError, match="call it from a plain function"):
        run(order)


def test_one_key_for_two_effects() -> None:
    async def program(sdk: RuntaraSdk) -> None:
        effect("mail", "one")
        effect("mail", "two")

    with pytest.raises(AssertionError, match="'mail' was 'one', and then 'two'"):
        check_every_boundary(program)


async def test_a_backend_for_a_test_of_ones_own(autojump_clock: trio.testing.MockClock) -> None:
    async with memory_backend() as backend:
        assert backend.config.heartbeat_interval_ms == 0
