"""What an instance starts: children in blocks, and instances of their own right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from ..clock import Seconds
from ..codec import Codec
from ..engine import children as engine
from ..engine import deadlines
from ..engine.children import Group, open_group
from ..errors import ConfigError, InstanceFailed
from ..ids import child_id, shortened, started_id
from ..messages import NewRun, Starter, StartRuns
from .facts import Facts
from .paths import Path, below, check_name
from .starts import Start, check_existing, check_start, made, newest_version
from .workflow import AnyWorkflow, Workflow, decode_output

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
AsT = TypeVar("AsT")

LONGEST_BLOCK = 512
"""Bytes of the name under which a block of children is stored."""


class ChildOptions(TypedDict, total=False):
    """The options of :meth:`Children.start`."""

    name: str | None
    queue: str | None
    priority: int
    delay: Seconds | None
    at: datetime | None
    key: str | None
    attributes: Mapping[str, str | int | float | bool] | None
    version: int | None


class Child(Generic[T]):
    """A child that was started."""

    def __init__(
        self, group: Group, child: engine.Child, workflow: AnyWorkflow | None, codec: Codec
    ) -> None:
        self._group = group
        self._child = child
        self._workflow = workflow
        self._codec = codec

    def __repr__(self) -> str:
        return f"<child {self.id!r}>"

    @property
    def id(self) -> str:
        """The id of its instance."""
        return self._child.instance_id

    @overload
    async def result(self) -> T: ...
    @overload
    async def result(self, type: type[AsT]) -> AsT: ...
    async def result(self, type: type[Any] | None = None) -> Any:
        """Wait for its end, and return what its workflow returned.

        A boundary for its whole length. The worker's slot is free meanwhile.

        Args:
          type: what it is decoded to. None: the workflow's return annotation; where only the
            workflow's name is known, whatever the codec makes of it.

        Raises:
          InstanceFailed: it failed, or was cancelled. It leaves the block in any case.
          SdkError: what was wrong with its start.
          CodecError: the result is not of the type.
        """
        found = await self._group.result(self._child)
        return decode_output(self._workflow, self._codec, self.id, found.output or b"", type)


class Children:
    """A block of children; :meth:`RuntaraSdk.open_children` opens it."""

    def __init__(self, sdk: Starting, group: Group, path: Path) -> None:
        self._sdk = sdk
        self._group = group
        self._path = path

    @overload
    async def start(
        self, workflow: Workflow[*Ts, T], *args: *Ts, **options: Unpack[ChildOptions]
    ) -> Child[T]: ...
    @overload
    async def start(
        self, workflow: str, *args: Any, **options: Unpack[ChildOptions]
    ) -> Child[Any]: ...
    async def start(  # type: ignore[misc]  # a workflow of any arguments
        self, workflow: Any, *args: Any, name: str | None = None, **options: Any
    ) -> Child[Any]:
        """Start a child, which any worker runs. It does not wait for the commit: many in a row go
        out in one.

        A boundary. A run of the parent that finds the child of an earlier run starts none.

        Args:
          workflow: a :class:`Workflow`, or the name of one.
          args: its arguments; of a child that is there already those of then stand.
          name: its part of the id. None: by the order of calls, which the task that opened the
            block fixes; from any other task a name is required.
          options: ``queue``, ``priority``, ``delay``, ``at``, ``key``, ``attributes`` and
            ``version`` of :meth:`Client.start`.

        Raises:
          ConfigError: an invalid option. TypeError: too few arguments or too many. CodecError: an
            argument has no encoding.
          SdkError: a sibling has the name; or no name is given and the order is not fixed.
        """
        part = self._path.next_name("child", "children.start") if name is None else check_name(name)
        path = self._path.child(part)
        return await self._sdk._start_child(self._group, path, workflow, args, options)


class Starting(Facts):
    """The verbs that start instances."""

    _codec: Codec

    @property
    def _path(self) -> Path:
        raise NotImplementedError

    def open_children(self, name: str | None = None) -> AbstractAsyncContextManager[Children]:
        """A nursery of instances::

            async with sdk.open_children() as children:
                labels = [await children.start(ship, parcel, name=parcel) for parcel in parcels]
                return [await label.result() for label in labels]

        Each child is an instance of its own, run by any worker. The block is left when all have
        ended. One that fails cancels its siblings and the body; then an ExceptionGroup of
        :class:`InstanceFailed` leaves the block, of those that failed, not of those that it has
        cancelled. A cancelled scope around the block cancels the children. Where only this run
        ends (a pause, a drain, a crash), they go on, and the next run finds them.

        Args:
          name: its part of the path. None: by the order of calls in the task that opened the
            path around it.
        """
        return self._children(name)

    @asynccontextmanager
    async def _children(self, name: str | None) -> AsyncIterator[Children]:
        around = self._path
        own = around.next_name("children", "open_children") if name is None else check_name(name)
        path = around.begin(own)
        try:
            with below(path):
                async with open_group(self._block, _block_of(path)) as group:
                    yield Children(self, group, path)
        finally:
            around.end(own)

    @overload
    async def call(
        self, workflow: Workflow[*Ts, T], *args: *Ts, **options: Unpack[ChildOptions]
    ) -> T: ...
    @overload
    async def call(self, workflow: str, *args: Any, **options: Unpack[ChildOptions]) -> Any: ...
    async def call(  # type: ignore[misc]
        self, workflow: Any, *args: Any, name: str | None = None, **options: Any
    ) -> Any:
        """Run one child and return its result; see :meth:`open_children`.

        Args:
          workflow: a :class:`Workflow`, or the name of one.
          args: its arguments.
          name: its part of the id. None: by the order of calls; see :meth:`open_children`.
          options: of :meth:`Children.start`.

        Raises:
          InstanceFailed: it failed, or was cancelled by an operator.
        """
        around = self._path
        own = around.next_name("call", "sdk.call") if name is None else check_name(name)
        path = around.begin(own)
        try:
            async with open_group(self._block, _block_of(path)) as group:
                child = await self._start_child(group, path, workflow, args, options)
                return await child.result()
        except* InstanceFailed as group_of_one:
            failed = _only(group_of_one)
        finally:
            around.end(own)
        raise failed

    @overload
    async def start(
        self,
        workflow: Workflow[*Ts, Any],
        *args: *Ts,
        id: str | None = None,
        **options: Unpack[ChildOptions],
    ) -> str: ...
    @overload
    async def start(
        self, workflow: str, *args: Any, id: str | None = None, **options: Unpack[ChildOptions]
    ) -> str: ...
    async def start(  # type: ignore[misc]
        self,
        workflow: Any,
        *args: Any,
        id: str | None = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Start an instance of its own right, once whatever crashes, and return its id.

        Nobody waits for it, and the end of this instance does not concern it. That it was started
        is saved with it: a replay starts none, also where it was pruned since.

        Args:
          workflow: a :class:`Workflow`, or the name of one.
          args: its arguments.
          id: None: by the path of the calling task.
          name: its part of the path. None: by the order of calls; see :meth:`open_children`.
          options: of :meth:`Children.start`.

        Raises:
          InstanceExists: the id is another's.
        """
        around = self._path
        own = around.next_name("start", "sdk.start") if name is None else check_name(name)
        path = around.child(own)
        place = self.instance_id, _parts(path)
        new = await self._new_run(workflow, child_id(*place) if id is None else id, args, options)
        block = self._block
        saved_as = started_id(_block_of(path))
        if deadlines.replaying():
            await deadlines.note(await block.requests.find(saved_as))
        by = Starter(
            instance_id=self.instance_id, lease=block.state.lease_for_write(), saved_as=saved_as
        )
        message = StartRuns(tenant_id=self.tenant_id, runs=(new,), by=by)
        reply = await block.requests.save(message)
        (existing,) = reply.existing
        check_existing(existing, new, self.tenant_id, self._codec, "attach")
        await block.boundary.reach_saved()
        return reply.before[0] if reply.before else new.instance_id

    async def _start_child(
        self,
        group: Group,
        path: Path,
        workflow: AnyWorkflow | str,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Child[Any]:
        run = await self._new_run(workflow, child_id(self.instance_id, _parts(path)), args, options)
        child = await group.start(run)
        known = workflow if isinstance(workflow, Workflow) else None
        return Child(group, child, known, self._codec)

    async def _new_run(
        self,
        workflow: AnyWorkflow | str,
        id: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> NewRun:
        unknown = set(options) - set(ChildOptions.__annotations__)
        if unknown:
            raise ConfigError(
                f"{min(unknown)!r} is an unknown option; there are "
                f"{', '.join(ChildOptions.__annotations__)}"
            )
        check_start(workflow, "attach")
        version = options.pop("version", None)
        if isinstance(workflow, str) and version is None:
            version = await newest_version(self._block.shared, workflow)
        start: Start[Any] = Start(args=args, id=id, **options)
        return made(workflow, start, version=version, codec=self._codec)


def _parts(path: Path) -> list[str]:
    return path.prefix.rstrip("/").split("/")


def _block_of(path: Path) -> str:
    return shortened("::".join(_parts(path)), LONGEST_BLOCK)


def _only(error: BaseExceptionGroup[InstanceFailed]) -> InstanceFailed:
    found: BaseException = error
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, InstanceFailed)
    return found
