"""What a client and an operator do alike: with workers and queues."""

from __future__ import annotations

from ..backend import Backend
from ..ids import check_name_of
from ..messages import ListQueues, ListWorkers, PauseQueue, SetQueues
from ..types import Queue, QueueInfo, WorkerInfo
from .queues import checked_queue


class Fleet:
    """Verbs that are about no instance in particular."""

    _backend: Backend

    async def list_workers(self) -> tuple[WorkerInfo, ...]:
        """The workers that live, of any tenant."""
        return (await self._backend.request(ListWorkers())).workers

    async def set_queue(self, queue: Queue) -> None:
        """Store what a queue allows, in place of what is stored. It counts for all workers, from
        their next claim on. Raises ConfigError."""
        await self._backend.request(SetQueues(queues=(checked_queue(queue),)))

    async def pause_queue(self, name: str) -> None:
        """Have no worker claim from a queue; runs that have begun go on."""
        name = check_name_of("queue", name)
        await self._backend.request(PauseQueue(name=name, paused=True))

    async def resume_queue(self, name: str) -> None:
        """Have workers claim from a queue again. Raises SdkError: it is unknown."""
        name = check_name_of("queue", name)
        await self._backend.request(PauseQueue(name=name, paused=False))

    async def list_queues(self) -> tuple[QueueInfo, ...]:
        """The queues that are stored, and those that have something ready; by name."""
        return (await self._backend.request(ListQueues())).queues
