"""``simulate``: a whole fleet, thousands of times, each time with other faults."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import trio
from trio.testing import MockClock

from ...errors import ConfigError
from ...ids import check_instance_id
from ...sdk.queues import checked_queue
from ...sdk.schedules import Schedule
from ...sdk.starts import Start
from ...sdk.workflow import AnyWorkflow, Workflow
from ...types import InstanceStatus, Queue
from ..running import check_outside_of_trio
from .audit import Finding
from .ending import until_over
from .fleet import Fleet, Scenario
from .plan import FleetFault, Planned, checked_faults, drawn
from .repeatable import repeatable
from .shrink import shrunk
from .timeline import Timeline, shown


class SimulatedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance at the end of a simulation."""

    instance_id: str
    workflow: str
    status: InstanceStatus
    output: bytes | None
    """As the codec has encoded it."""
    error: str | None
    parent_id: str | None


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation: its seed, its faults, and how it ended."""

    seed: int
    planned: tuple[Planned, ...]
    instances: Mapping[str, SimulatedInstance]
    """By id."""
    effects: Mapping[str, Any]
    """What the workflows did to the world: :func:`effect`, by key."""
    finding: Finding | None
    """What must not be; None: all was well."""
    seconds: float
    """Of simulated time."""
    messages: int
    """Those at which faults may come."""
    log: Timeline

    @property
    def timeline(self) -> list[str]:
        """What happened, a line each, in the order of simulated time."""
        return self.log.lines


class SimulationFailed(AssertionError):
    """A seed whose faults break something.

    ``simulated`` is the simulation with the fewest faults that still break it.
    """

    def __init__(self, simulated: Simulated, text: str) -> None:
        super().__init__(text)
        self.simulated = simulated


Check = Callable[[Simulated], object]
Starting = tuple[AnyWorkflow, Sequence[Any] | Start[Any]]


def simulate(
    workflows: Iterable[AnyWorkflow],
    starts: Iterable[Starting],
    *,
    workers: int = 3,
    seeds: Iterable[int] = range(1000),
    faults: Iterable[FleetFault | str] | None = None,
    check: Check | None = None,
    slots: int = 3,
    max_loaded: int = 2,
    queues: Iterable[Queue] = (),
    schedules: Iterable[Schedule] = (),
    signals: Mapping[str, bytes] | None = None,
) -> Simulated:
    """Simulate a fleet once for every seed, and raise at the first one that goes wrong.

    Workers and a client run on one store in memory, in one Trio run on a mocked clock. The seed
    decides the order of tasks, how long messages take, and which faults come when; so it shows
    the same again. Answers are the real store's, with Trio's time instead of the machine's.

    Each simulation checks by itself: no run is in two places at once; what was acknowledged is
    there; no saved step is run again; limits and rates of queues are kept; runs of a key with one
    turn go in the order of their starts; a slot of a schedule is run once, and beside no other
    where it must not overlap; when a parent fails or is cancelled, so are its children, in the
    same commit; and every run ends, or waits for something that can be named. When no fault is
    left, what is paused is resumed, and what waits for a known signal gets it.

    Args:
      workflows: what the workers run. Their functions must not keep anything in variables that
        outlive a run, nor use threads or sockets.
      starts: pairs of a workflow and its arguments, or a :class:`Start` with its options.
      workers: how many at once; one that has died is started again.
      seeds: one simulation each.
      faults: the kinds of faults that may come. None: all of :class:`FleetFault`.
      check: called with each :class:`Simulated` in which nothing was found; it raises what it
        finds wrong.
      slots: of each worker.
      max_loaded: of each worker: few, so that runs are unloaded.
      queues: with their limits; a fault may change them.
      schedules: run while the simulation lasts: until all that was started has ended.
      signals: what is sent to a run that waits for a signal or a message, by its id or name.

    Returns:
      The last simulation.

    Raises:
      SimulationFailed: with the seed, the fewest faults that show it, and a timeline.
      ConfigError: an invalid argument.
    """
    check_outside_of_trio()
    scenario = _scenario(
        workflows,
        starts,
        {"workers": workers, "slots": slots, "max_loaded": max_loaded},
        tuple(queues),
        tuple(schedules),
        signals or {},
    )
    kinds = checked_faults(faults)
    last: Simulated | None = None
    with _silent():
        messages = _simulated(scenario, 0, (), None).messages if kinds else 0
        for seed in seeds:
            last = _simulated(scenario, seed, drawn(seed, kinds, messages), check)
            if last.finding is not None:
                raise _failure(scenario, last, check)
    if last is None:
        raise ConfigError("seeds is empty: nothing would be simulated")
    return last


def _failure(scenario: Scenario, found: Simulated, check: Check | None) -> SimulationFailed:
    assert found.finding is not None
    rule = found.finding.rule

    def still(planned: Sequence[Planned]) -> Simulated | None:
        again = _simulated(scenario, found.seed, tuple(planned), check)
        return again if again.finding is not None and again.finding.rule == rule else None

    least = shrunk(found, still)
    assert least.finding is not None
    timeline = shown(least.timeline, least.finding.instance_id)
    faults = "".join(f"\n  {one}" for one in least.planned) or "\n  none: it fails undisturbed"
    return SimulationFailed(
        least,
        f"seed {found.seed}: {least.finding}\nfaults:{faults}\n"
        f"what happened:\n"
        + "\n".join(timeline)
        + f"\nto see it again: simulate(…, seeds=[{found.seed}])",
    )


def _simulated(
    scenario: Scenario, seed: int, planned: tuple[Planned, ...], check: Check | None
) -> Simulated:
    """One simulation. What it finds, and what ``check`` raises, is its finding."""
    with repeatable(seed):
        simulated = trio.run(_run, scenario, seed, planned, clock=MockClock(autojump_threshold=0))
    if simulated.finding is not None or check is None:
        return simulated
    try:
        made = check(simulated)
    except Exception as exc:
        finding = Finding("the check", f"{type(exc).__name__}: {exc}")
        return msgspec.structs.replace(simulated, finding=finding)
    if inspect.iscoroutine(made):
        made.close()
        raise TypeError("check must not be async: it would never be awaited")
    return simulated


async def _run(scenario: Scenario, seed: int, planned: tuple[Planned, ...]) -> Simulated:
    fleet = Fleet(scenario, seed, planned)
    instances: dict[str, SimulatedInstance] = {}

    async def over(fleet: Fleet) -> None:
        await until_over(fleet)
        instances.update(_instances(fleet))

    await fleet.run(over)
    if fleet.effects.conflicts:
        fleet.audit.finding("an effect has one value", ", ".join(fleet.effects.conflicts))
    return Simulated(
        seed=seed,
        planned=planned,
        instances=instances,
        effects=fleet.effects.effects,
        finding=fleet.audit.findings[0] if fleet.audit.findings else None,
        seconds=trio.current_time(),
        messages=fleet.messages,
        log=fleet.timeline,
    )


def _instances(fleet: Fleet) -> Iterator[tuple[str, SimulatedInstance]]:
    rows = fleet.file.db.execute(
        "SELECT i.instance_id, r.workflow, i.status, i.output, i.error, r.parent_id"
        " FROM instances i JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
        " ORDER BY i.instance_id"
    )
    for instance, workflow, status, output, error, parent in rows:
        yield (
            instance,
            SimulatedInstance(
                instance_id=instance,
                workflow=workflow,
                status=InstanceStatus(status),
                output=output,
                error=error,
                parent_id=parent,
            ),
        )


def _scenario(
    workflows: Iterable[AnyWorkflow],
    starts: Iterable[Starting],
    numbers: Mapping[str, int],
    queues: tuple[Queue, ...],
    schedules: tuple[Schedule, ...],
    signals: Mapping[str, bytes],
) -> Scenario:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name} must be a whole number from 1, not {number!r}")
    known = tuple(workflows)
    made: list[tuple[AnyWorkflow, Start[Any]]] = []
    for number, (workflow, given) in enumerate(starts):
        if not isinstance(workflow, Workflow):
            raise ConfigError(f"starts[{number}] must begin with a workflow, not {workflow!r}")
        start = given if isinstance(given, Start) else Start(args=tuple(given))
        if start.id is None:
            start = msgspec.structs.replace(start, id=f"{workflow.name}-{number}")
        check_instance_id(start.id)
        made.append((workflow, start))
    if not known or not made:
        raise ConfigError("give workflows, and starts of them")
    return Scenario(
        workflows=known,
        starts=tuple(made),
        **numbers,
        queues=tuple(checked_queue(one) for one in queues),
        schedules=schedules,
        signals=signals,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """The faults of simulations are nobody's who reads logs."""
    logger = logging.getLogger("runtara_trio")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
