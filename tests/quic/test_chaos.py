"""Real programs on a real server, over a network that loses, doubles and spoils, for a while.

Programs are killed and stopped, the server is killed, people cancel and pause. In the suite it is
short; ``nox -s chaos -- SECONDS SEED`` takes as long as is wanted.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import trio

from runtara_trio import InstanceStatus, Operator, SdkError, open_backend

from ..helpers.fleet import Ledger
from ..helpers.network import delivered, rough
from ..helpers.places import Shared, free_port
from ..helpers.support import Program, start, start_args
from ..helpers.udp import RoughProxy, open_rough_proxy
from ..worker.test_chaos import SECONDS, SEED, check_ledger, try_again

PROGRAMS = 4
STEPS = 30
LONG = 120.0


class Served:
    """A server that is killed and started again, and programs that are as well."""

    def __init__(
        self, store: Shared, port: int, proxy: RoughProxy, folder: Path, operator: Operator
    ) -> None:
        self.draw = random.Random(SEED)
        self.programs: dict[str, Program] = {}
        """That run now, by instance."""
        self.instances: list[str] = []
        self.stopped: set[int] = set()
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self.over = False
        """No further instance is begun."""
        self.ledger = Ledger(folder)
        self._arguments = ("-m", "runtara_trio", "serve", "--store", store.url, "--port", str(port))
        self._url = f"quic://127.0.0.1:{proxy.address[1]}"
        self._store = store
        self._proxy = proxy
        self._folder = folder
        self._operator = operator
        self._server: Program | None = None

    async def serve(self) -> None:
        """Until cancelled: one after the other."""
        while True:
            async with start_args(*self._arguments) as server:
                await server.line("serving")
                self._server = server
                await self.until_ended(server)

    async def until_ended(self, server: Program) -> None:
        """It has nothing to say, for longer than a line is waited for: a client that nobody told of
        the end of its server notices it by its own idle timeout."""
        while True:
            try:
                await server.line()
            except EOFError:
                return
            except trio.TooSlowError:
                continue

    async def run_instances(self) -> None:
        """One after the other, each until it has ended, whatever happens to its program."""
        while not self.over:
            id = f"i{len(self.instances)}"
            self.instances.append(id)
            await self.run(id)

    async def run(self, id: str) -> None:
        while not await self.has_ended(id):
            async with start("over_quic.py", self._url, self._folder, id, STEPS, 0.01) as program:
                self.programs[id] = program
                code = await program.process.wait()
                del self.programs[id]
                if code not in (0, -signal.SIGKILL):
                    self.failed += await program.rest()
            await try_again(lambda: self._operator.resume(id))

    async def has_ended(self, id: str) -> bool:
        found = await self._operator.list(id_prefix=id, limit=1000)
        (status,) = [one.status for one in found.instances if one.instance_id == id] or [None]
        return status is not None and status.finished

    async def go_on(self, seconds: float) -> None:
        self._proxy.fate = rough(SEED, loss=0.02, reorder=0.05, double=0.02, corrupt=0.01)
        faults = [self.kill, self.stop, self.kill_server, self.cancel, self.pause]
        with trio.move_on_after(seconds):
            while True:
                fault = self.draw.choice(faults)
                with trio.CancelScope(shield=True):
                    await try_again(fault)
                self.done[fault.__name__] += 1
                await trio.sleep(0.5 * self.draw.random())
        self._proxy.fate = delivered

    def some(self) -> tuple[str, Program]:
        if not self.programs:
            raise SdkError("nothing runs just now")
        return self.draw.choice(list(self.programs.items()))

    async def kill(self) -> None:
        self.some()[1].send(signal.SIGKILL)

    async def stop(self) -> None:
        """For longer than the server waits for it, at times."""
        _, program = self.some()
        self.stopped.add(program.pid)
        program.send(signal.SIGSTOP)
        await trio.sleep(3 * self.draw.random())
        program.send(signal.SIGCONT)

    async def kill_server(self) -> None:
        if self._server is not None:
            self._server.send(signal.SIGKILL)

    async def cancel(self) -> None:
        await self._operator.cancel(self.some()[0])

    async def pause(self) -> None:
        await self._operator.pause(self.some()[0])


async def test_whatever_goes_wrong_on_the_way(tmp_path: Path) -> None:
    store, port = Shared(f"sqlite:///{tmp_path}/served.db"), free_port()
    async with (
        open_backend(store.url, create=True) as backend,
        open_rough_proxy(port) as proxy,
        trio.open_nursery() as services,
    ):
        operator = Operator(backend)
        served = Served(store, port, proxy, tmp_path, operator)
        services.start_soon(served.serve)
        async with trio.open_nursery() as running:
            for _ in range(PROGRAMS):
                running.start_soon(served.run_instances)
            await served.go_on(SECONDS)
            served.over = True
            running.cancel_scope.deadline = trio.current_time() + LONG
        ended: Counter[InstanceStatus] = Counter()
        for id in served.instances:
            ended[(await operator.show(id)).summary.status] += 1
        print(dict(served.done), {status.value: count for status, count in ended.items()})
        services.cancel_scope.cancel()
    assert not served.failed
    assert sum(ended.values()) == len(served.instances)
    assert set(ended) <= {InstanceStatus.COMPLETED, InstanceStatus.CANCELLED}, ended
    assert ended[InstanceStatus.COMPLETED]
    check_ledger(served.ledger, {}, served.stopped)
