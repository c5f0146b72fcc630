"""Traces, as OpenTelemetry's own exporter in memory has them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import fastapi
import httpx
import pytest
import trio
import trio.testing
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from runtara_trio import (
    InstanceFailed,
    Operator,
    Outcome,
    RuntaraSdk,
    SharedBackend,
    aio,
    durable,
    open_backend,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)

from ..helpers.places import Shared
from ..helpers.support import block, start
from .conftest import Metrics, Spans, links_of

WEEK = 7 * 24 * 3600


@durable(max_retries=1, summary="charge {cents} cents")
async def charge(cents: int, *, tried: list[int]) -> int:
    tried.append(cents)
    if len(tried) == 1:
        raise ConnectionError("no route")
    with trace.get_tracer("bank").start_as_current_span("POST /charges"):
        return cents


@durable
def in_a_thread() -> str:
    return f"{trace.get_current_span().get_span_context().span_id:x}"


@durable(max_retries=0)
async def refused() -> None:
    raise ValueError("no such account")


@workflow
async def label(sdk: RuntaraSdk) -> str:
    return "a label"


@workflow(queue="shipping")
async def ship(sdk: RuntaraSdk) -> str:
    return "on its way"


@workflow
async def order(sdk: RuntaraSdk) -> str:
    with trace.get_tracer("shop").start_as_current_span("pack"):
        return await sdk.call(ship)


def about(span: ReadableSpan) -> dict[str, Any]:
    assert span.attributes is not None
    return {name.removeprefix("runtara."): value for name, value in span.attributes.items()}


@pytest.mark.alone
async def test_a_run_its_steps_and_their_attempts(
    backend: SharedBackend, spans: Spans, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_backend(":memory:") as traced:
        async with block(traced, "one") as sdk:
            await charge(5, tried=[])
            await sdk.sleep(1, "a moment")
            async with sdk.step("pack"):
                pass
            async with sdk.deadline("in time", 9):
                await sdk.checkpoint("packed")
    assert spans.tree() == {
        (None, "run"),
        ("run", "call charge"),
        ("call charge", "attempt"),
        ("attempt", "POST /charges"),
        ("run", "sleep"),
        ("run", "step"),
        ("run", "deadline"),
    }
    assert about(spans.one("call charge"))["summary"] == "charge 5 cents"
    assert about(spans.one("call charge"))["outcome"] == "done"
    first, second = spans.named("attempt")
    assert first.status.status_code is StatusCode.ERROR
    assert [one.name for one in first.events] == ["exception"]
    assert second.status.status_code is StatusCode.UNSET
    run = spans.one("run")
    assert run.kind is SpanKind.INTERNAL
    assert about(run)["instance_id"] == "one"
    assert about(run)["outcome"] == Outcome.COMPLETED.value


@pytest.mark.parametrize("history", ["steps", "none"])
async def test_spans_do_not_need_the_history(spans: Spans, history: Any) -> None:
    from runtara_trio import SdkConfig

    async with open_backend(":memory:", config=SdkConfig(history=history)) as traced:
        async with block(traced, "one"):
            found = await in_a_thread()
    assert found == f"{spans.one('attempt').context.span_id:x}"


async def test_failures(spans: Spans) -> None:
    async with open_backend(":memory:") as traced:
        with pytest.raises(ValueError, match="account"):
            async with block(traced, "one"):
                await refused()
        for name in ("call refused", "run"):
            assert spans.one(name).status.status_code is StatusCode.ERROR
        assert about(spans.one("call refused"))["outcome"] == "failed"
        spans.exporter.clear()
        with pytest.raises(ValueError, match="account"):
            async with open_runtara(traced, instance_id="two", tenant_id="t"):
                raise ValueError("no account")
        assert about(spans.one("run"))["outcome"] == Outcome.FAILED.value


async def test_what_is_cancelled_has_not_failed(spans: Spans) -> None:
    async with open_backend(":memory:") as traced:
        with trio.move_on_after(0):
            async with block(traced, "one") as sdk:
                await sdk.sleep(WEEK, "long")
        async with block(traced, "one") as sdk:
            with trio.CancelScope() as scope:
                async with sdk.step("work"):
                    scope.cancel()
                    await trio.sleep_forever()
    assert all(one.status.status_code is StatusCode.UNSET for one in spans.ended)
    assert about(spans.one("step"))["outcome"] == "interrupted"


async def test_a_request_begins_it_and_a_child_runs_elsewhere(shared: Shared, spans: Spans) -> None:
    """A web application on asyncio, its workflow in one worker, a child in another."""
    web = fastapi.FastAPI()
    async with (
        open_backend(shared.url, create=True) as here,
        open_backend(shared.url) as there,
        open_worker(here, [order], queues=["default"]),
        open_worker(there, [ship], queues=["shipping"]),
    ):

        @web.post("/orders")
        async def begin(request: fastapi.Request) -> str:
            context = propagate.extract(request.headers)
            with trace.get_tracer("web").start_as_current_span("POST /orders", context):
                async with aio.open_client(shared.url, tenant_id="t") as client:
                    return (await client.start(order, id="order-7")).id

        async def browse() -> None:
            transport = httpx.ASGITransport(web)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
                traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                await browser.post("/orders", headers={"traceparent": traceparent})

        await trio.to_thread.run_sync(asyncio.run, browse())
        async with open_client(here, tenant_id="t") as client:
            with trio.fail_after(30):
                assert await client.get("order-7", order).result() == "on its way"
    assert {one.context.trace_id for one in spans.ended} == {0x0AF7651916CD43DD8448EB211C80319C}
    assert spans.tree() >= {
        (None, "POST /orders"),
        ("POST /orders", "run order"),
        ("run order", "pack"),
        ("pack", "run ship"),
        ("pack", "wait for child"),
    }
    parent, child = spans.one("run order"), spans.one("run ship")
    assert links_of(child) == [parent.context.span_id]
    assert child.kind is SpanKind.CONSUMER
    assert about(child)["workflow"] == "ship"


async def test_a_run_after_a_takeover_is_linked_to_the_run_before(
    shared: Shared, spans: Spans
) -> None:
    @workflow
    async def order(sdk: RuntaraSdk) -> None:
        pass

    async with (
        open_backend(shared.url, create=True) as here,
        open_client(here, tenant_id="t") as client,
    ):
        with trace.get_tracer("web").start_as_current_span("request"):
            handle = await client.start(order)
        async with start("traced.py", shared.url) as before:
            _, trace_id, span_id = (await before.line("run")).split()
            # The context of the run is written beside it, at once.
            with trio.fail_after(30):
                while (await contexts(here, handle.id)).run is None:
                    await trio.sleep(0.01)
            await before.kill()
        async with open_worker(here, [order]):
            with trio.fail_after(30):
                await handle.result()
    run = spans.one("run order")
    assert links_of(run) == [int(span_id, 16)]
    assert run.context.trace_id == int(trace_id, 16) == spans.one("request").context.trace_id
    assert about(run)["resumed"] is True


async def contexts(backend: SharedBackend, instance_id: str) -> Any:
    from runtara_trio.messages import ListTraces

    return (await backend.request(ListTraces(instance_ids=(instance_id,)))).traces[instance_id]


async def test_a_block_that_is_started_again_is_linked(
    shared: Shared, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        async with open_backend(shared.url) as opened:
            with trio.CancelScope() as scope:
                async with block(opened, "one"):
                    with trio.fail_after(30):
                        while not await noted(opened):
                            await trio.sleep(0.01)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    first, second = spans.named("run")
    assert links_of(first) == []
    assert links_of(second) == [first.context.span_id]
    assert about(first)["outcome"] == Outcome.STOPPED.value
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def noted(backend: SharedBackend) -> bool:
    from runtara_trio.messages import ListTraces

    return bool((await backend.request(ListTraces(instance_ids=("one",)))).traces)


@workflow
async def sleeper(sdk: RuntaraSdk) -> str:
    return await for_a_week(sdk)


async def for_a_week(sdk: RuntaraSdk) -> str:
    with trace.get_tracer("shop").start_as_current_span("of the program"):
        await outer(sdk)
    async with sdk.step("after"):
        return "awake"


@durable(key="all")
async def outer(sdk: RuntaraSdk) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sdk.sleep, WEEK, "a week")
        nursery.start_soon(sdk.sleep, 100, "a while")


async def test_no_span_is_open_before_a_late_retry(
    spans: Spans, autojump_clock: trio.testing.MockClock
) -> None:
    tries: list[int] = []

    @durable(delay=3600)
    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 2:
            raise OSError("no route")
        return len(tries)

    async def look() -> None:
        await trio.sleep(90)
        assert not +spans.open

    async with open_backend(":memory:") as opened, trio.open_nursery() as nursery:
        nursery.start_soon(look)
        async with block(opened, "one"):
            assert await flaky() == 2
    assert [about(one).get("waits_on") for one in spans.named("call flaky")] == [True, None]
    assert about(spans.one("wait for retry"))["waits_on"] is True


@pytest.mark.parametrize("worker", [True, False])
async def test_no_span_is_open_for_a_week(
    spans: Spans, worker: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def look() -> None:
        await trio.sleep(50)
        assert spans.open["sleep"] == 2
        for _ in range(2):  # once while both tasks wait, and once while the longer one does
            await trio.sleep(30)
            assert +spans.open == {"of the program": 1}
            await trio.sleep(60)

    async with open_backend(":memory:") as opened, trio.open_nursery() as nursery:
        nursery.start_soon(look)
        if worker:
            async with open_worker(opened, [sleeper]), open_client(opened, tenant_id="t") as client:
                assert await (await client.start(sleeper)).result() == "awake"
        else:
            async with block(opened, "one") as sdk:
                await for_a_week(sdk)
    assert not +spans.open
    run = "run sleeper" if worker else "run"
    assert [about(one)["waits_on"] for one in spans.named("sleep")] == [True, True]
    for name in ("call outer", "attempt", run):
        first, second, last = spans.named(name)
        assert about(first)["waits_on"] is about(second)["waits_on"] is True
        assert links_of(second) == [first.context.span_id]
        assert links_of(last) == [second.context.span_id]
        assert "waits_on" not in about(last)
        assert first.context.trace_id == last.context.trace_id
    assert about(spans.named("call outer")[-1])["outcome"] == "done"
    around = spans.one("step").parent
    assert around is not None
    assert around.span_id == spans.named(run)[-1].context.span_id


async def test_no_span_is_open_while_a_pause_holds(
    spans: Spans, autojump_clock: trio.testing.MockClock
) -> None:
    async def hold() -> None:
        operator = Operator(opened)
        await trio.sleep(5)
        await operator.pause("one")
        await trio.sleep(100)
        assert not +spans.open
        await operator.resume("one")

    async with open_backend(":memory:") as opened, trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        async with block(opened, "one", on_pause="hold") as sdk:
            await sdk.sleep(10, "nap")
            async with sdk.step("after"):
                pass
    first, second = spans.named("run")
    assert links_of(second) == [first.context.span_id]
    assert about(second)["outcome"] == Outcome.COMPLETED.value


async def test_logs_carry_the_span(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "runtara_trio")
    async with open_backend(":memory:") as traced, block(traced, "one") as sdk:
        await sdk.checkpoint("a")
    (record,) = [one for one in caplog.records if getattr(one, "event", "") == "checkpoint"]
    context = spans.one("run").context
    assert getattr(record, "trace_id") == f"{context.trace_id:032x}"  # noqa: B009
    assert getattr(record, "span_id") == f"{context.span_id:016x}"  # noqa: B009


async def test_contexts_of_another_program_are_not_believed(spans: Spans) -> None:
    from runtara_trio.messages import NewRun, StartRuns

    async with open_backend(":memory:") as opened, open_client(opened, tenant_id="t") as client:
        for number, text in enumerate(("no json", '{"traceparent": "x"}', "[1]", "{}")):
            run = NewRun(
                instance_id=f"{number}",
                workflow="label",
                version=1,
                queue="default",
                input=b"[]",
                trace=text,
            )
            await opened.request(StartRuns(tenant_id="t", runs=(run,)))
        async with open_worker(opened, [label]):
            for number in range(4):
                assert await client.get(f"{number}", label).result() == "a label"
    assert all(one.parent is None for one in spans.named("run label"))


class Broken(SpanProcessor, TextMapPropagator):
    """Raises whatever it is asked."""

    fields = frozenset()  # type: ignore[assignment]

    def _raise(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError("broken")

    on_start = on_end = extract = inject = _raise


class Silent(Exception):
    def __str__(self) -> str:
        raise TypeError("no text")


async def test_what_is_broken_disturbs_no_run(
    spans: Spans, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans.provider.add_span_processor(Broken())
    monkeypatch.setattr(propagate, "inject", Broken().inject)
    monkeypatch.setattr(propagate, "extract", Broken().extract)

    @workflow
    async def quiet(sdk: RuntaraSdk) -> str:
        await sdk.sleep(0.01, "nap")
        return await sdk.call(ship)

    @workflow
    async def fails(sdk: RuntaraSdk) -> None:
        raise Silent

    async with (
        open_backend(":memory:") as opened,
        open_worker(opened, [quiet, ship, fails], queues=["default", "shipping"]),
        open_client(opened, tenant_id="t") as client,
    ):
        with trio.fail_after(30):
            assert await (await client.start(quiet)).result() == "on its way"
            with pytest.raises(InstanceFailed):
                await (await client.start(fails)).result()


def test_nothing_is_imported_that_the_program_has_not() -> None:
    program = """
import sys, trio, runtara_trio
@runtara_trio.durable
async def call() -> None: ...
async def main():
    async with runtara_trio.open_runtara(":memory:", instance_id="i", tenant_id="t"):
        await call()
trio.run(main)
print([name for name in sys.modules if name.startswith(("opentelemetry", "prometheus"))])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr
