"""Agents of pydantic-ai: each request to a model, and each call of a tool, is a durable call.

An agent runs on asyncio, so it runs through ``sdk.asyncio`` in a workflow or a block::

    agent = Agent("openai:gpt-5", name="clerk", capabilities=[RuntaraDurability()])

    @workflow
    async def answer(sdk: RuntaraSdk, question: str) -> str:
        return (await sdk.asyncio(agent.run, question)).output

A replay gets what the model and the tools have answered, and asks neither again. Outside of a block
the agent is as any other.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypedDict, TypeVar

import trio
from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.capabilities.abstract import WrapRunHandler
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DurableOperationId,
    JournalCallableOperationBackend,
    RoleBasedOperationConfig,
)
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import AgentDepsT, RunContext

from ..clock import Seconds
from ..errors import SdkError
from ..sdk.asyncio_bridge import calling_task
from ..sdk.current import current_sdk
from ..sdk.durable import durable
from ..sdk.retry import RetryOn
from ..sdk.runtara_sdk import RuntaraSdk

P = ParamSpec("P")
T = TypeVar("T")


class StepOptions(TypedDict, total=False):
    """What :func:`runtara_trio.durable` takes, for the steps of one kind. Left out: its defaults,
    but that nothing is tried again, for pydantic-ai does that by itself."""

    max_retries: int | None
    delay: Seconds
    max_delay: Seconds
    retry_on: RetryOn | None
    timeout: Seconds | None


async def on_trio(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a function of Trio in asyncio's code: a verb of the SDK in a tool, or in a handler of
    events::

        await on_trio(current_sdk().custom_event, "progress", {"text": text})
    """
    loop: Any = asyncio.get_running_loop()  # trio-asyncio's
    found: T = await loop.trio_as_future(functools.partial(function, *args, **kwargs))
    return found


class RuntaraDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes an agent durable in the blocks and workflows that it runs in.

    Args:
      models: others than the agent's own that a run may use, by their ids.
      event_stream_handler: gets the events of the agent, once each: those of a model while it
        answers, the others in steps of their own.
      name: of the agent, in the ids of its steps. None: its own. It must stay the same.
      model_steps: how a request to a model is tried.
      tool_steps: how a call of a tool is tried, and the discovery of tools.
      event_steps: how the handler is tried.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="runtara-trio",
        durable_unit_noun="step",
        durable_container_noun="instance",
        codec=JSON_CODEC,
        toolset_lifecycles={
            "function": "enter-always",
            "mcp": "enter-in-durable-unit",
            "dynamic": "enter-never",
        },
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        name: str | None = None,
        model_steps: StepOptions | None = None,
        tool_steps: StepOptions | None = None,
        event_steps: StepOptions | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        tool = _options(tool_steps)
        self._steps: RoleBasedOperationConfig[StepOptions] = RoleBasedOperationConfig(
            model=_options(model_steps), event=_options(event_steps), capability=tool, tool=tool
        )

    @property
    def in_durable_context(self) -> bool:
        return _sdk() is not None

    def get_durable_operation_backend(self) -> DurableOperationBackend[StepOptions]:
        return _Steps(
            agent_name=self.name, default_model_id=self.default_model_id, config=self._steps
        )

    def get_default_run_id(self) -> str | None:
        sdk = _sdk()
        if sdk is None:
            return None
        path, number = sdk._path, _next(sdk, f"run of {self.name}")
        here = f"{sdk.instance_id}:{path.prefix}{path.within}"
        caller = calling_task.get()
        if caller is not None and not _next(sdk, f"runs of {self.name}", caller) and number:
            raise SdkError(
                f"two tasks run the agent {self.name!r} at one place: which is first is not the "
                "same in every run: put each in a sdk.scope of its own, or in sdk.map or sdk.gather"
            )
        return f"{here}{number}"

    async def wrap_run(
        self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        token = _run.set((ctx.run_id or "").rpartition(":")[2].rpartition("/")[2])
        try:
            return await super().wrap_run(ctx, handler=handler)
        finally:
            _run.reset(token)

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        sdk = _sdk()
        if sdk is None:
            return None

        async def now() -> str:
            return datetime.now(UTC).isoformat()

        return datetime.fromisoformat(
            await _step(sdk, f"{self.name}__run_start_time", "", now, _options(None))
        )


_run: ContextVar[str] = ContextVar("runtara_trio_run_of_agent", default="")
"""The number of the run that the calling task is of, or the id that somebody has given it."""


class _Steps(JournalCallableOperationBackend[StepOptions]):
    """Runs what an agent does as durable calls."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: StepOptions,
    ) -> object:
        sdk = _sdk()
        assert sdk is not None
        return await _step(sdk, name, _identity(cache_key), body, config)


def _identity(given: tuple[object, ...]) -> str:
    """Of which run of an agent something is, and of which call of a tool.

    Runs and calls may overlap, and end in another order in a replay: what they do is numbered in
    each by itself. The ids of calls are in the saved answers of the model.
    """
    call = None
    for one in given:  # the context of a tool, or an event
        call = call or getattr(one, "tool_call_id", None)
    return ".".join([*filter(None, [_run.get(), call]), ""])


def _sdk() -> RuntaraSdk | None:
    """That of the block around; None: there is no block."""
    try:
        return current_sdk()
    except SdkError:
        return None


def _options(given: StepOptions | None) -> StepOptions:
    return {"max_retries": 0, **(given or {})}


def _next(sdk: RuntaraSdk, name: str, of: object = None) -> int:
    """How often something of this name came before at this place: in this run of the program, or
    in this attempt at a durable call."""
    path = sdk._path
    return path.numbers.next(("pydantic-ai", path.prefix, name, of))


async def _step(
    sdk: RuntaraSdk,
    name: str,
    identity: str,
    body: Callable[[], Awaitable[Any]],
    options: StepOptions,
) -> Any:
    """Run a body as the durable call of this name: of what it is, and the number there."""
    key = f"{sdk._path.within}{identity}{_next(sdk, f'{name}/{identity}')}"

    @durable(name=name, key="{key}", flavor="asyncio", **options)
    async def step(key: str) -> Any:
        return await body()

    async def call() -> Any:
        await sdk._block.boundary.reach()
        if sdk._block.boundary.is_cancelled():
            # This task is of asyncio's loop, which the scope of the block is not around: it is
            # cancelled with the call of sdk.asyncio.
            await trio.sleep_forever()
        return await step(key)

    return await on_trio(call)
