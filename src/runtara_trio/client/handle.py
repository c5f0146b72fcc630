"""``InstanceHandle``: one instance, for whoever started it or knows its id."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import trio

from ..clock import Seconds, check_seconds
from ..codec import Codec, error_text
from ..engine.services import SharedBackend
from ..errors import InstanceFailed, SdkError
from ..messages import EventPage, GetResults, GetStatus, SignalAnswer
from ..sdk.operator import Operator
from ..sdk.workflow import AnyWorkflow, decode_output
from ..types import InstanceDetails, InstanceStatus

T = TypeVar("T")
AsT = TypeVar("AsT")


class InstanceHandle(Generic[T]):
    """An instance of a client's tenant, that exists or will."""

    def __init__(
        self,
        shared: SharedBackend,
        instance_id: str,
        *,
        tenant_id: str,
        workflow: AnyWorkflow | None,
        codec: Codec,
    ) -> None:
        self._shared = shared
        self._tenant_id = tenant_id
        self._workflow = workflow
        self._codec = codec
        self._operator = Operator(shared, codec=codec)
        self.id = instance_id
        """The instance's id."""

    def __repr__(self) -> str:
        return f"<instance {self.id!r}>"

    @overload
    async def result(self, *, timeout: Seconds | None = None) -> T: ...
    @overload
    async def result(self, type: type[AsT], *, timeout: Seconds | None = None) -> AsT: ...
    async def result(self, type: type[Any] | None = None, *, timeout: Seconds | None = None) -> Any:
        """Wait for the end, and return what the workflow returned.

        Cancelling who waits does nothing to the instance. However many wait, the store is asked
        once for all of them.

        Args:
          type: what it is decoded to. None: the workflow's return annotation; where only the
            workflow's name is known, whatever the codec makes of it.
          timeout: seconds, or a ``timedelta``; None: as long as it takes.

        Raises:
          TooSlowError: not within the timeout.
          InstanceFailed: it failed, or was cancelled.
          CodecError: the result is not of the type.
        """
        limit = None if timeout is None else check_seconds("timeout", timeout)
        found = None
        with trio.move_on_after(float("inf") if limit is None else limit):
            with self._shared.ends.waiting(self.id) as waiter:
                found = await waiter.wait()
        if found is None:
            raise trio.TooSlowError(f"instance {self.id!r} has not ended within {limit:g} s")
        self._check_tenant(found.tenant_id)
        if found.status is not InstanceStatus.COMPLETED:
            raise InstanceFailed(
                self.id, found.status, error_text(self._codec, self.id, found.error)
            )
        return decode_output(self._workflow, self._codec, self.id, found.output or b"", type)

    async def status(self) -> InstanceStatus:
        """Its status; UNKNOWN where it does not exist."""
        await self._check()
        return (await self._shared.request(GetStatus(instance_id=self.id))).status

    async def show(self) -> InstanceDetails:
        """All about it. Raises ServerError where it does not exist."""
        await self._check()
        return await self._operator.show(self.id)

    async def events(self, *, after: int = 0, limit: int = 1000) -> EventPage:
        """Its history, oldest first.

        Args:
          after: the id of an event; the page is what follows it. 0: from the first.
          limit: of the page, 1 to 100,000.
        """
        await self._check()
        return await self._operator.events(self.id, after=after, limit=limit)

    async def cancel(self) -> SignalAnswer:
        """Cancel it, and its children; nothing takes a cancel back. Raises SignalRefused."""
        await self._check()
        return await self._operator.cancel(self.id)

    async def pause(self, *, tree: bool = False) -> SignalAnswer:
        """Suspend it at its next boundary, until a resume.

        Args:
          tree: its children, too, and theirs; else they go on.

        Raises:
          SignalRefused: unknown, finished, or a cancel stands.
        """
        await self._check()
        return await self._operator.pause(self.id, tree=tree)

    async def resume(self, *, tree: bool = False) -> SignalAnswer:
        """Put it back into its queue, or take back a pause.

        Args:
          tree: its children, too, and theirs.

        Raises:
          SignalRefused: unknown, finished, or a cancel stands.
        """
        await self._check()
        return await self._operator.resume(self.id, tree=tree)

    async def signal(
        self, checkpoint_id: str, payload: Any = b"", *, replace: bool = False
    ) -> None:
        """Send a payload to whoever waits, now or later, for this id of the instance.

        Args:
          checkpoint_id: the id that it waits for, path included.
          payload: bytes, a text, or a value; see :meth:`Operator.send_signal`.
          replace: instead of a signal that nobody has taken yet.

        Raises:
          SignalRefused: unknown or finished; the id has or had a different signal.
        """
        await self._check()
        await self._operator.send_signal(self.id, checkpoint_id, payload, replace=replace)

    async def send_message(self, name: str, payload: Any = b"") -> None:
        """Send a message to the instance. Any number may wait, in the order of their sending.

        Args:
          name: under which it receives.
          payload: bytes, a text, or a value; see :meth:`Operator.send_signal`.

        Raises:
          SignalRefused: unknown or finished.
        """
        await self._check()
        await self._operator.send_message(self.id, name, payload)

    async def rerun(self) -> None:
        """Make it pending again, once it has ended; see :meth:`Operator.rerun`. A wait for its
        result waits for the new end."""
        await self._check()
        await self._operator.rerun(self.id)

    async def _check(self) -> None:
        """Raises SdkError where the instance is another tenant's."""
        found = (await self._shared.request(GetResults(instance_ids=(self.id,)))).results
        if self.id in found:
            self._check_tenant(found[self.id].tenant_id)

    def _check_tenant(self, tenant_id: str) -> None:
        if tenant_id != self._tenant_id:
            raise SdkError(
                f"instance {self.id!r} is not of tenant {self._tenant_id!r}; open a client of its "
                "tenant, or use an Operator"
            )
