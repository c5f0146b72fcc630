"""What a store does with an operator's signal: the table, cell by cell."""

from __future__ import annotations

import pytest

from runtara_trio import (
    InstanceStatus,
    Operator,
    SharedBackend,
    SignalRefused,
    SignalType,
)
from runtara_trio.messages import NewRun, RecordOutcome, Register, StartRuns
from runtara_trio.store.answers.rules import SIGNALS, Action, Standing, decide_signal, standing

from ..helpers.support import sql

CANCEL, PAUSE, RESUME = SignalType
RUNNING, SUSPENDED = InstanceStatus.RUNNING, InstanceStatus.SUSPENDED

pytestmark = pytest.mark.guard


def test_the_table_has_every_cell() -> None:
    living = set(Standing) - {Standing.FINISHED}
    assert set(SIGNALS) == {(kind, where) for kind in SignalType for where in living}


@pytest.mark.parametrize("kind", list(SignalType))
def test_a_finished_instance_refuses_all(kind: SignalType) -> None:
    with pytest.raises(SignalRefused, match="'i' is completed"):
        decide_signal("i", kind, Standing.FINISHED, InstanceStatus.COMPLETED, None)


@pytest.mark.parametrize("kind", [PAUSE, RESUME])
def test_nothing_takes_a_cancel_back(kind: SignalType) -> None:
    with pytest.raises(SignalRefused, match="has a cancel"):
        decide_signal("i", kind, Standing.ALIVE, RUNNING, CANCEL)
    assert decide_signal("i", CANCEL, Standing.ALIVE, RUNNING, CANCEL)[0] is Action.DELIVER


@pytest.mark.parametrize(
    ("status", "alive", "ours", "where"),
    [
        (RUNNING, True, True, Standing.ALIVE),
        (SUSPENDED, True, True, Standing.ALIVE),
        (RUNNING, False, True, Standing.DEAD),
        (RUNNING, False, False, Standing.CORE_RUNNING),
        (SUSPENDED, False, True, Standing.IDLE),
        (SUSPENDED, False, False, Standing.CORE_SUSPENDED),
        (InstanceStatus.PENDING, False, False, Standing.IDLE),
        (InstanceStatus.CANCELLED, False, True, Standing.FINISHED),
        (InstanceStatus.FAILED, True, True, Standing.FINISHED),
    ],
)
def test_where_an_instance_stands(
    status: InstanceStatus, alive: bool, ours: bool, where: Standing
) -> None:
    assert standing(status, alive=alive, ours=ours) is where


# ---- the same through a store


RUN = NewRun(instance_id="i", workflow="w", version=1, queue="default", input=b"[]")


async def put(backend: SharedBackend, where: Standing) -> None:
    """An instance 'i' that stands there."""
    if where in (Standing.QUEUED, Standing.OUT):
        await backend.request(StartRuns(tenant_id="t", runs=(RUN,)))
        if where is Standing.OUT:
            await sql(backend, "UPDATE runtara_trio_runs SET state = 'paused'")
        return
    reply = await backend.request(Register(instance_id="i", tenant_id="t"))
    if where in (Standing.IDLE, Standing.CORE_SUSPENDED, Standing.FINISHED):
        status = InstanceStatus.FAILED if where is Standing.FINISHED else SUSPENDED
        await backend.request(RecordOutcome(instance_id="i", lease=reply.lease, status=status))
    if where is Standing.DEAD:
        await sql(backend, "UPDATE runtara_trio_leases SET owner = 'dead'")
    if where in (Standing.CORE_RUNNING, Standing.CORE_SUSPENDED):
        await sql(
            backend, "UPDATE instances SET started_at = '2026-11-22T16:10:15.516583684+00:00'"
        )


async def state(backend: SharedBackend) -> tuple[InstanceStatus, SignalType | None]:
    summary = (await Operator(backend).show("i")).summary
    return summary.status, summary.signal


@pytest.mark.parametrize("where", [where for where in Standing if where is not Standing.FINISHED])
@pytest.mark.parametrize("kind", list(SignalType))
async def test_each_cell(backend: SharedBackend, where: Standing, kind: SignalType) -> None:
    operator = Operator(backend)
    await put(backend, where)
    before, _ = await state(backend)
    if kind is RESUME and where not in (Standing.QUEUED, Standing.OUT):
        await operator.pause("i")
    answer = await getattr(operator, kind.value)("i")
    action, text = SIGNALS[kind, where]
    assert answer.text == text
    assert (answer.status, await state(backend)) == {
        Action.DELIVER: (before, (before, kind)),
        Action.WAIT: (before, (before, kind)),
        Action.WITHDRAW: (before, (before, None)),
        Action.TAKE_OUT: (before, (before, None)),
        Action.PUT_BACK: (before, (before, None)),
        Action.NOTHING: (before, (before, None)),
        Action.CARRY_OUT: (InstanceStatus.CANCELLED, (InstanceStatus.CANCELLED, None)),
        Action.MARK: (InstanceStatus.CANCELLED, (InstanceStatus.CANCELLED, CANCEL)),
    }[action]


@pytest.mark.parametrize("kind", list(SignalType))
async def test_finished_and_unknown(backend: SharedBackend, kind: SignalType) -> None:
    send = getattr(Operator(backend), kind.value)
    await put(backend, Standing.FINISHED)
    with pytest.raises(SignalRefused, match="is failed"):
        await send("i")
    with pytest.raises(SignalRefused, match="there is no instance 'nobody'"):
        await send("nobody")


async def test_a_cancel_is_sticky(backend: SharedBackend) -> None:
    operator = Operator(backend)
    await put(backend, Standing.ALIVE)
    await operator.pause("i")
    await operator.cancel("i")
    for send in (operator.pause, operator.resume):
        with pytest.raises(SignalRefused, match="has a cancel"):
            await send("i")
    assert await state(backend) == (RUNNING, CANCEL)


async def test_a_cancel_for_a_dead_lease_takes_it(backend: SharedBackend) -> None:
    """A holder that comes back after it is fenced."""
    await put(backend, Standing.DEAD)
    await Operator(backend).cancel("i")
    assert await sql(backend, "SELECT count(*) FROM runtara_trio_leases") == [(0,)]
