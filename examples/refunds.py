"""An agent that refunds orders, once a person has agreed. ``python refunds.py QUESTION``

It survives a crash at any moment: the model is not asked again for what it has answered, a tool is
not called again whose result is saved, and the wait for a person outlives the process. Start it
again, and it goes on. Ann agrees by::

    runtara-trio signal refund agree-refund-1 '{"agreed": true, "by": "ann"}'

Without a network: ``script`` stands in for a model. Set MODEL, as openai:gpt-5, for a real one.
"""

import os
import sys
from collections.abc import AsyncIterable, AsyncIterator

import trio
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, ToolDenied
from pydantic_ai.messages import AgentStreamEvent, FunctionToolCallEvent, ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.function import DeltaToolCalls as Calls
from pydantic_ai.toolsets import FunctionToolset

from runtara_trio import RuntaraSdk, current_sdk, open_runtara
from runtara_trio.contrib.pydantic_ai import RuntaraDurability, on_trio

DATABASE = os.environ.get("RUNTARA_DATABASE_URL", "sqlite:///refunds.db")


class Agreement(BaseModel):
    agreed: bool
    by: str


tools: FunctionToolset = FunctionToolset(id="shop")


@tools.tool_plain
async def price(order: str) -> int:
    """What an order has cost, in cents."""
    print(f"looking up {order}", flush=True)
    return 1999


@tools.tool_plain(requires_approval=True)
async def refund(order: str, cents: int) -> str:
    """Refund an order."""
    # The bank does a thing once for a key, so that a crash here does not refund twice.
    print(f"refunding {order} with the key {current_sdk().step_key}", flush=True)
    return f"refunded {cents} cents"


async def show(context: RunContext, events: AsyncIterable[AgentStreamEvent]) -> None:
    """What the agent does, as events of the instance: the console shows them."""
    async for event in events:
        if isinstance(event, FunctionToolCallEvent):
            told = {"tool": event.part.tool_name}
            await on_trio(current_sdk().custom_event, "progress", told)


async def script(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | Calls]:
    """What a model would answer."""
    match len(messages):
        case 1:
            yield {0: DeltaToolCall("price", '{"order": "order-7"}', tool_call_id="price-1")}
        case 3:
            arguments = '{"order": "order-7", "cents": 1999}'
            yield {0: DeltaToolCall("refund", arguments, tool_call_id="refund-1")}
        case _:
            for word in ("order-7 ", "is ", "refunded."):
                yield word


clerk = Agent(
    os.environ.get("MODEL") or FunctionModel(stream_function=script),
    name="clerk",
    instructions="You refund orders. Look the price up first.",
    toolsets=[tools],
    output_type=[str, DeferredToolRequests],
    capabilities=[RuntaraDurability(event_stream_handler=show)],
)


async def agreements(sdk: RuntaraSdk, wanted: DeferredToolRequests) -> DeferredToolResults:
    """What people say to the calls that the agent wants to make."""
    answers: dict[str, bool | ToolDenied] = {}
    for call in wanted.approvals:
        print(f"may it call {call.tool_name} with {call.args}?", flush=True)
        answer = await sdk.wait_for_signal(f"agree-{call.tool_call_id}", type=Agreement)
        denied = ToolDenied(f"{answer.by} has not agreed")
        answers[call.tool_call_id] = True if answer.agreed else denied
    return DeferredToolResults(approvals=answers)


async def main(question: str) -> None:
    async with open_runtara(DATABASE, instance_id="refund", tenant_id="shop") as sdk:
        result = await sdk.asyncio(clerk.run, question)
        while isinstance(result.output, DeferredToolRequests):
            result = await sdk.asyncio(
                clerk.run,
                message_history=result.all_messages(),
                deferred_tool_results=await agreements(sdk, result.output),
            )
        print(result.output, flush=True)


if __name__ == "__main__":
    trio.run(main, " ".join(sys.argv[1:]) or "Please refund order-7.")
