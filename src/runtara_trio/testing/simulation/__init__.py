"""A fleet in one process: thousands of runs of a whole system, every fault, each from its seed.

simulate    the public function: seeds, failures
fleet       workers and a client on one store, and what goes wrong
process     one process: its store, over a network that is slow and loses things
store       one database in memory, which many stores use as if each were of a process
operating   what people do
plan        which faults come when
audit       what must hold, seen from outside
limits      what queues allow, counted from outside
ending      when it is over, and whether what has not ended waits for something
shrink      the fewest faults that show it
timeline    what happened, to be read
repeatable  Trio's scheduling, from a seed
"""

from .plan import FleetFault, Planned
from .simulate import Simulated, SimulatedInstance, SimulationFailed, simulate

__all__ = [
    "FleetFault",
    "Planned",
    "Simulated",
    "SimulatedInstance",
    "SimulationFailed",
    "simulate",
]
