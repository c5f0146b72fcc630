"""Durable agents, with pydantic-ai's own models for tests: no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import FunctionToolset

from runtara_trio import (
    Operator,
    Outcome,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    current_sdk,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.contrib.pydantic_ai import RuntaraDurability, on_trio

from ..helpers.places import Shared
from ..helpers.support import block, needs_trio_asyncio, start

pytestmark = needs_trio_asyncio

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def clerk(model: Any, **options: Any) -> Agent[None, Any]:
    """An agent with a tool."""
    tools: FunctionToolset[None] = FunctionToolset(id="shop")

    @tools.tool_plain
    async def price(name: str) -> int:
        done.append(f"price of {name}")
        return len(name)

    durability: RuntaraDurability[None] = RuntaraDurability(**options)
    return Agent(model, name="clerk", toolsets=[tools], capabilities=[durability])


async def test_a_replay_asks_neither_the_model_nor_a_tool(memory: SharedBackend) -> None:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done.append("model")
        if len(messages) == 1:
            calls = [ToolCallPart("price", {"name": name}) for name in ("boat", "oar")]
            return ModelResponse(parts=calls)
        return ModelResponse(parts=[TextPart("4 and 3")])

    agent = clerk(FunctionModel(model))
    for _ in range(2):
        async with block(memory, revive=True) as sdk:
            result = await sdk.asyncio(agent.run, "how much?")
        assert result.output == "4 and 3"
    assert sorted(done) == ["model", "model", "price of boat", "price of oar"]
    steps = [one.step for one in await Operator(memory).steps("i")]
    assert steps[0] == "durable::clerk__model.request::0.0"
    assert len(steps) == 4


async def test_two_runs_in_one_block_are_two(memory: SharedBackend) -> None:
    agent = clerk(TestModel())
    async with block(memory) as sdk:
        first = await sdk.asyncio(agent.run, "one")
        second = await sdk.asyncio(agent.run, "two")
        third = await sdk.asyncio(agent.run, "three", message_history=second.all_messages())
    assert done == ["price of a", "price of a"]
    assert (first.run_id, second.run_id, third.run_id) == ("i:0", "i:1", "i:2")
    assert third.all_messages()[: len(second.all_messages())] == second.all_messages()


async def test_what_overlaps_ends_in_another_order_in_a_replay(memory: SharedBackend) -> None:
    """Two runs at once, each with two calls of one tool at once: each gets its own answers."""
    slow = ["a", "d"]
    stops = True

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        first = messages[0].parts[-1]
        names = str(first.content)
        if len(messages) == 1:
            await asyncio.sleep(0.05 if names[0] in slow else 0)
            return ModelResponse(parts=[ToolCallPart("spell", {"name": one}) for one in names])
        last = [str(part.content) for part in messages[-1].parts]
        return ModelResponse(parts=[TextPart(" ".join(last))])

    tools: FunctionToolset[None] = FunctionToolset(id="words")

    @tools.tool_plain
    async def spell(name: str) -> str:
        done.append(name)
        await asyncio.sleep(0.05 if name in slow else 0)
        if stops and len(done) == 4:
            raise KeyboardInterrupt
        return f"<{name}>"

    agent = Agent(
        FunctionModel(model), name="clerk", toolsets=[tools], capabilities=[RuntaraDurability()]
    )

    async def both() -> list[str]:
        return [one.output for one in await asyncio.gather(agent.run("ab"), agent.run("cd"))]

    with pytest.raises(KeyboardInterrupt):
        async with block(memory) as sdk:
            await sdk.asyncio(both)
    stops, slow = False, ["b", "c"]
    async with block(memory) as sdk:
        assert await sdk.asyncio(both) == ["<a> <b>", "<c> <d>"]
    assert len(done) < 8  # something was saved


def echo() -> Agent[None, Any]:
    """An agent that answers with what it was asked."""

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked = str(messages[0].parts[-1].content)
        done.append(asked)
        await asyncio.sleep(0.02 if asked == "slow" else 0)
        return ModelResponse(parts=[TextPart(f"answer to {asked}")])

    return Agent(FunctionModel(model), name="clerk", capabilities=[RuntaraDurability()])


async def test_agents_in_durable_calls_are_numbered_in_each(memory: SharedBackend) -> None:
    """A replay does not run the first call, and the second one is as it was."""
    agent, crashes = echo(), True

    @durable
    async def ask(question: str) -> str:
        answer: str = (await current_sdk().asyncio(agent.run, question)).output
        if crashes and question == "b":
            raise KeyboardInterrupt
        return answer

    with pytest.raises(KeyboardInterrupt):
        async with block(memory):
            await ask("a")
            await ask("b")
    crashes = False
    async with block(memory):
        assert [await ask("a"), await ask("b")] == ["answer to a", "answer to b"]
    assert done == ["a", "b"]


async def test_a_retry_of_a_durable_call_has_what_its_agent_answered(memory: SharedBackend) -> None:
    agent = echo()

    @durable(max_retries=1, delay=0.001)
    async def ask(question: str) -> str:
        answer: str = (await current_sdk().asyncio(agent.run, question)).output
        if len(tries) < 1:
            tries.append(answer)
            raise OSError("no route")
        return answer

    tries: list[str] = []
    async with block(memory):
        assert await ask("a") == "answer to a"
    assert done == ["a"]


async def test_runs_at_one_place_in_two_tasks_are_refused(memory: SharedBackend) -> None:
    """Which of them is the first is not fixed; in places of their own they are told apart."""
    agent = echo()
    answers: dict[str, str] = {}

    async def ask(sdk: RuntaraSdk, question: str, place: str | None) -> None:
        with nullcontext() if place is None else sdk.scope(place):
            answers[question] = (await sdk.asyncio(agent.run, question)).output

    with pytest.raises(ExceptionGroup) as caught:
        async with block(memory, "refused") as sdk, trio.open_nursery() as nursery:
            for question in ("slow", "fast"):
                nursery.start_soon(ask, sdk, question, None)
    assert caught.group_contains(SdkError, match="two tasks run the agent 'clerk' at one place")
    async with block(memory) as sdk, trio.open_nursery() as nursery:
        for question in ("slow", "fast"):
            nursery.start_soon(ask, sdk, question, question)
    assert answers == {"slow": "answer to slow", "fast": "answer to fast"}


async def test_a_crash_in_the_middle_of_a_tool(shared: Shared) -> None:
    """The model is not asked again for what it has answered; the tool is, with the same key."""
    async with start("agent.py", shared.url) as before:
        assert await before.line("model") == "model 1"
        charged = await before.line("charge")
        await before.kill()
    async with start("agent.py", shared.url, "ends") as after:
        lines = await after.rest()
    assert lines == [charged, "model 3", "said it is charged"]
    assert "durable::clerk__function_toolset__bank.call_tool" in charged


class Approval(BaseModel):
    approved: bool
    by: str


def refunding() -> Agent[None, Any]:
    tools: FunctionToolset[None] = FunctionToolset(id="bank")

    @tools.tool_plain(requires_approval=True)
    async def refund(cents: int) -> str:
        done.append(f"refund {cents}")
        return "refunded"

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done.append("model")
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("refund", {"cents": 5}, "call-1")])
        return ModelResponse(parts=[TextPart("done")])

    return Agent(
        FunctionModel(model),
        name="refunds",
        toolsets=[tools],
        output_type=[str, DeferredToolRequests],
        capabilities=[RuntaraDurability()],
    )


AGENT = refunding()


@workflow
async def refund(sdk: RuntaraSdk, question: str) -> str:
    result = await sdk.asyncio(AGENT.run, question)
    while isinstance(result.output, DeferredToolRequests):
        answers = {}
        for call in result.output.approvals:
            answer = await sdk.wait_for_signal(call.tool_call_id, type=Approval)
            answers[call.tool_call_id] = answer.approved
        result = await sdk.asyncio(
            AGENT.run,
            message_history=result.all_messages(),
            deferred_tool_results=DeferredToolResults(approvals=answers),
        )
    return str(result.output)


async def test_a_person_approves_while_no_worker_has_it(
    backend: SharedBackend, operator: Operator
) -> None:
    async with open_client(backend, tenant_id="t") as client:
        async with open_worker(backend, [refund]):
            instance = await client.start(refund, "refund me", id="one")
            with trio.fail_after(30):
                while not (await operator.waits()).waits:
                    await trio.sleep(0.01)
        assert done == ["model"]
        await instance.signal("call-1", Approval(approved=True, by="ann"))
        async with open_worker(backend, [refund]):
            with trio.fail_after(30):
                assert await instance.result() == "done"
    assert done == ["model", "refund 5", "model"]


async def test_progress_as_events(memory: SharedBackend) -> None:
    async def handler(ctx: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            if isinstance(event, FunctionToolCallEvent | PartDeltaEvent):
                name = type(event).__name__
                await on_trio(current_sdk().custom_event, "progress", {"event": name})

    agent = clerk(TestModel(), event_stream_handler=handler)
    for _ in range(2):
        async with block(memory, revive=True) as sdk:
            await sdk.asyncio(agent.run, "how much?")
    told = [one for one in (await Operator(memory).events("i")).events if one.subtype == "progress"]
    kinds = [one.payload.decode() for one in told]
    assert kinds.count('{"event":"FunctionToolCallEvent"}') == 1
    assert '{"event":"PartDeltaEvent"}' in kinds


@pytest.mark.parametrize("verb", ["cancel", "pause"])
async def test_signals_while_a_model_answers(memory: SharedBackend, verb: str) -> None:
    """A cancel ends the request; a pause waits for it, and what it brought is saved."""
    asked = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done.append("asked")
        token.run_sync_soon(asked.set)
        try:
            await asyncio.sleep(3600 if verb == "cancel" else 0.2)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise
        done.append("answered")
        return ModelResponse(parts=[ToolCallPart("price", {"name": "boat"})])

    async def act() -> None:
        await asked.wait()
        await getattr(Operator(memory), verb)("i")

    agent = clerk(FunctionModel(model))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            async with block(memory) as sdk:
                nursery.start_soon(act)
                await sdk.asyncio(agent.run, "how much?")
    if verb == "cancel":
        assert (sdk.outcome, done) == (Outcome.CANCELLED, ["asked", "cancelled"])
        return
    assert (sdk.outcome, done) == (Outcome.PAUSED, ["asked", "answered"])
    (step,) = await Operator(memory).steps("i")
    assert step.step == "durable::clerk__model.request::0.0"


async def test_a_request_that_fails_is_tried_again(memory: SharedBackend) -> None:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done.append("asked")
        if len(done) < 3:
            raise ConnectionError("no route")
        return ModelResponse(parts=[TextPart("here")])

    steps = {"max_retries": 3, "delay": 0.001, "retry_on": ConnectionError}
    agent = clerk(FunctionModel(model), model_steps=steps)
    async with block(memory) as sdk:
        assert (await sdk.asyncio(agent.run, "are you there?")).output == "here"
    assert done == ["asked"] * 3
    done.clear()
    once = clerk(FunctionModel(model))
    with pytest.raises(ConnectionError):
        async with block(memory, "other") as sdk:
            await sdk.asyncio(once.run, "are you there?")
    assert done == ["asked"]


async def test_outside_of_a_block_it_is_as_any_other() -> None:
    agent = clerk(TestModel())
    result = await trio.to_thread.run_sync(lambda: asyncio.run(agent.run("how much?")))
    assert result.output == '{"price":1}'


EXAMPLE = Path(__file__).parents[2] / "examples" / "refunds.py"


@pytest.mark.parametrize("agreed", [True, False])
async def test_the_example(shared: Shared, tmp_path: Path, agreed: bool) -> None:
    """Killed while it waits for a person, and started again."""
    program = shared.program(EXAMPLE, tmp_path)
    async with start(program, cwd=tmp_path) as before:
        assert await before.line() == "looking up order-7"
        asked = await before.line("may it call refund")
        await before.kill()
    answer = {"agreed": agreed, "by": "ann"}
    async with open_backend(shared.url) as backend, start(program, cwd=tmp_path) as after:
        assert await after.line() == asked
        operator = Operator(backend)
        await operator.send_signal("refund", "agree-refund-1", answer)
        rest = await after.rest()
        told = [one.payload for one in (await operator.events("refund")).events if one.subtype]
    assert rest[-1] == "order-7 is refunded."
    assert len([line for line in rest if "refunding order-7 with the key" in line]) == agreed
    assert b'{"tool":"price"}' in told
