"""Answers decide before they write, and stand once for both databases."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runtara_trio
from runtara_trio import (
    EventType,
    InstanceStatus,
    Operator,
    SdkError,
    SharedBackend,
    Signal,
    SignalType,
    open_backend,
)
from runtara_trio.ids import is_attempt, retry_id, users_id, wake_id
from runtara_trio.messages import (
    AcknowledgeSignal,
    Checkpoint,
    GetCheckpoint,
    GoOn,
    Hold,
    ListEvents,
    ListInstances,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    Request,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
    Sleep,
    TakeLease,
    TakeSignal,
)

from ..helpers.support import block, sql

STORE = Path(runtara_trio.__file__).parent / "store"

# ---- a refusal has changed nothing

MINE: dict[str, Any] = {"instance_id": "runs"}
LOST: dict[str, Any] = {"instance_id": "runs", "lease": 999}
ENDED: dict[str, Any] = {"instance_id": "ended"}
PAUSE = Signal(SignalType.PAUSE, b"p")


def _under_lease(make: Callable[..., Request[Any]], **values: Any) -> Callable[[int], Request[Any]]:
    """A message under the lease of the instance ``core``, whose status somebody has changed."""
    return lambda lease: make(instance_id="core", lease=lease, **values)


REFUSED: dict[str, Request[Any] | Callable[[int], Request[Any]]] = {
    "register: it runs": Register(**MINE, tenant_id="t"),
    "register: another tenant": Register(**MINE, tenant_id="other"),
    "register: it has ended": Register(**ENDED, tenant_id="t"),
    "register: no resume point": Register(
        instance_id="ended", tenant_id="t", revive=True, checkpoint_id="never"
    ),
    "register: a new one, no resume point": Register(
        instance_id="new", tenant_id="t", checkpoint_id="never"
    ),
    "outcome": RecordOutcome(**LOST, status=InstanceStatus.COMPLETED),
    "hold": Hold(**LOST, signal=None),
    "go on": GoOn(**LOST, tenant_id="t"),
    "take a lease": TakeLease(**MINE),
    "take a lease: it has ended": TakeLease(**ENDED),
    "take a lease: unknown": TakeLease(instance_id="nobody"),
    "event": RecordEvent(**LOST, type=EventType.CUSTOM),
    "retry": RecordRetry(**LOST, checkpoint_id="a", attempt=1),
    "checkpoint": Checkpoint(**LOST, checkpoint_id="new", state=b""),
    "sleep": Sleep(**LOST, checkpoint_id="new", wake_at_ms=1),
    "sleep: a damaged wake time": _under_lease(Sleep, checkpoint_id="damaged", wake_at_ms=1),
    "acknowledge": AcknowledgeSignal(**LOST, signal=PAUSE),
    "acknowledge a cancel": AcknowledgeSignal(**LOST, signal=Signal(SignalType.CANCEL)),
    "take a signal": TakeSignal(**LOST, checkpoint_id="w"),
    "not running: hold": _under_lease(Hold, signal=None),
    "not running: event": _under_lease(RecordEvent, type=EventType.CUSTOM),
    "not running: retry": _under_lease(RecordRetry, checkpoint_id="a", attempt=1),
    "not running: checkpoint": _under_lease(Checkpoint, checkpoint_id="new", state=b""),
    "not running: sleep": _under_lease(Sleep, checkpoint_id="new", wake_at_ms=1),
    "not running: take a signal": _under_lease(TakeSignal, checkpoint_id="w", give_up=True),
    "cancel: unknown": SendSignal(instance_id="nobody", type=SignalType.CANCEL, payload=b""),
    "cancel: it has ended": SendSignal(**ENDED, type=SignalType.CANCEL, payload=b""),
    "signal: unknown": SendCustomSignal(instance_id="nobody", checkpoint_id="a", payload=b""),
    "signal: it has ended": SendCustomSignal(**ENDED, checkpoint_id="a", payload=b""),
    "signal: another waits": SendCustomSignal(**MINE, checkpoint_id="w", payload=b"second"),
    "show": ShowInstance(instance_id="nobody"),
    "events": ListEvents(instance_id="nobody"),
    "checkpoints": ReadCheckpoints(instance_id="nobody"),
    "get": GetCheckpoint(instance_id="nobody", checkpoint_id="a"),
    "list": ListInstances(before="no page"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_has_changed_nothing(case: str) -> None:
    """A refused answer did not even begin to write: its batch need not be undone."""
    async with open_backend(":memory:") as backend:
        await backend.request(Register(instance_id="runs", tenant_id="t"))
        await backend.request(
            SendCustomSignal(instance_id="runs", checkpoint_id="w", payload=b"first")
        )
        ended = (await backend.request(Register(instance_id="ended", tenant_id="t"))).lease
        await backend.request(
            RecordOutcome(instance_id="ended", lease=ended, status=InstanceStatus.COMPLETED)
        )
        lease = (await backend.request(Register(instance_id="core", tenant_id="t"))).lease
        await sql(
            backend,
            "INSERT INTO checkpoints (instance_id, checkpoint_id, state)"
            f" VALUES ('core', '{wake_id('damaged')}', x'00')",
        )
        if case.startswith("not running"):
            await sql(backend, "UPDATE instances SET status = 'failed' WHERE instance_id = 'core'")
        made = REFUSED[case]
        message = made if isinstance(made, Request) else made(lease)
        before = await sql(backend, "SELECT total_changes()")
        with pytest.raises(SdkError):
            await backend.request(message)
        assert await sql(backend, "SELECT total_changes()") == before


# ---- what an attempt is


@pytest.mark.parametrize(
    ("stored", "attempt"),
    [
        ("a::retry::1", True),
        ("a::retry::1::retry::2", True),
        ("::retry::3", True),
        ("a::retry::", False),
        ("a::retry::1st", False),
        ("a::retry::1/effect", False),
        ("a::retry::٣", False),
        ("a", False),
    ],
)
def test_what_an_attempt_is(stored: str, attempt: bool) -> None:
    assert is_attempt(stored) is attempt
    assert (users_id(stored) == stored) is not attempt


async def test_revive_forgets_attempts_at_a_step_that_looks_like_one(
    backend: SharedBackend,
) -> None:
    """An attempt at the step ``a::retry::1`` is an attempt, in whichever database."""
    async with block(backend) as sdk:
        await sdk.checkpoint("a")
        await sdk.checkpoint("a::retry::x")
        await sdk.record_retry_attempt("a::retry::1", 2)
        await sdk.record_retry_attempt("a", 7)
    async with block(backend, revive=True) as sdk:
        for gone in (retry_id("a::retry::1", 2), retry_id("a", 7)):
            assert await sdk.get_checkpoint(gone) is None
        assert await sdk.get_checkpoint("a::retry::x") == b""
        assert await sdk.get_checkpoint("a") == b""


async def test_revive_keeps_checkpoints_that_only_look_like_attempts(
    backend: SharedBackend,
) -> None:
    kept = {"mail::retry::2nd reminder", "x::retry::1/effect", "http::retry::3rd"}
    async with block(backend) as sdk:
        for name in kept:
            await sdk.checkpoint(name)
        await sdk.record_retry_attempt("x", 12)
    async with block(backend, revive=True):
        saved = (await Operator(backend).checkpoints("i")).checkpoints
        assert {one.checkpoint_id for one in saved} == kept


# ---- once for both

DECISIONS = {"LeaseLost", "InstanceBusy", "InstanceFinished", "SignalRefused", "ServerError"}
SAVES = {f"{one}/{name}.py" for one in ("sqlite", "postgres") for name in ("saving", "transact")}
SQL = re.compile(r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b", re.DOTALL)


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in STORE.rglob("*.py"):
        yield str(path.relative_to(STORE)), ast.parse(path.read_text())


def test_decisions_stand_in_the_answers() -> None:
    raised, asked = set(), set()
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                function = node.exc.func
                if isinstance(function, ast.Name) and function.id in DECISIONS:
                    raised.add(name)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "rules":
                asked.add(name)
    assert raised == {name for name in raised if name.startswith("answers/")}
    assert asked == {name for name in asked if name.startswith("answers/")} | SAVES


def test_sql_stands_below_the_two_databases() -> None:
    for name, tree in trees():
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        has_sql = any(SQL.search(text) for text in texts)
        assert not has_sql or name.startswith(("sqlite/", "postgres/")), name
