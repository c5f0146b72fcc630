"""A test kit: programs on a mocked clock, and every boundary with every fault.

    def test_order():
        check_every_boundary(program, operator=ana)

A program is an async function of the SDK, as it stands in an ``open_runtara`` block. The
kit runs it on a store in memory and on Trio's MockClock: a durable sleep of a week takes no
time. Sync durable functions run inline, not in a thread, for which that clock would not
wait.

A fleet of workers is simulated, once for every seed::

    def test_orders():
        simulate([order], [(order, (1999,)), (order, (5,))], seeds=range(200))

every       check_every_boundary: which cases there are, and what must be the same
running     one program in one case, started again until it has ended
faults      the backend of a process that fails at one boundary
world       the effects that outlive a crash
plugin      fixtures for pytest
simulation  simulate: workers and clients on one store, and what goes wrong
"""

from .every import BoundaryFailure, check_every_boundary
from .faults import Case, Fault
from .running import Run, memory_backend, run
from .simulation import (
    FleetFault,
    Planned,
    Simulated,
    SimulatedInstance,
    SimulationFailed,
    simulate,
)
from .world import effect

__all__ = [
    "BoundaryFailure",
    "Case",
    "Fault",
    "FleetFault",
    "Planned",
    "Run",
    "Simulated",
    "SimulatedInstance",
    "SimulationFailed",
    "check_every_boundary",
    "effect",
    "memory_backend",
    "run",
    "simulate",
]
