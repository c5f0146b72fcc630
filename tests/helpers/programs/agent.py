"""agent.py URL: an agent in a block. It says what it does; its tool hangs, unless a second argument
is there."""

import sys

import trio
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.toolsets import FunctionToolset

from runtara_trio import current_sdk, open_runtara
from runtara_trio.contrib.pydantic_ai import RuntaraDurability

url, ends = sys.argv[1], len(sys.argv) > 2
tools: FunctionToolset = FunctionToolset(id="bank")


@tools.tool_plain
async def charge(cents: int) -> str:
    import asyncio

    print("charge", cents, current_sdk().step_key, flush=True)
    if not ends:
        await asyncio.sleep(3600)
    return "charged"


def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    print("model", len(messages), flush=True)
    if len(messages) == 1:
        return ModelResponse(parts=[ToolCallPart("charge", {"cents": 5})])
    return ModelResponse(parts=[TextPart("it is charged")])


agent = Agent(
    FunctionModel(model), name="clerk", toolsets=[tools], capabilities=[RuntaraDurability()]
)


async def main() -> None:
    async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
        print("said", (await sdk.asyncio(agent.run, "charge me")).output, flush=True)


trio.run(main)
