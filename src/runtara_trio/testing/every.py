"""Every boundary with every fault: what must be the same."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ConfigError
from ..sdk.workflow import Workflow
from ..types import InstanceStatus
from .faults import OF_WORKFLOWS, Case, Fault
from .running import Program, Run, Script, run

Check = Callable[[Run], object]


class BoundaryFailure(AssertionError):
    """A program that a fault at one of its boundaries changes.

    ``case`` is the fault and the boundary, ``run`` how it went there (None where it could
    not be run), ``undisturbed`` how it goes without.
    """

    def __init__(self, case: Case, problem: str, undisturbed: Run, run: Run | None) -> None:
        super().__init__(
            f"{case}: {problem}\n"
            f"to run this case alone: check_every_boundary(..., only={str(case)!r})"
        )
        self.case = case
        self.undisturbed = undisturbed
        self.run = run


def check_every_boundary(
    program: Program,
    check: Check | None = None,
    *,
    operator: Script | None = None,
    faults: Iterable[Fault] | None = None,
    only: str | None = None,
    may_fail: bool = False,
    **options: Any,
) -> Run:
    """Run a program undisturbed, and then once for every boundary and every fault there.

    A boundary is what the program writes: a checkpoint, a durable call's save, a sleep, a wait,
    an event, a recorded retry, a start of children, its end; and what its children write. At
    one of them the process crashes before or after the save, the reply is lost, an operator
    cancels or pauses, or a scope around the block stops it. A workflow runs in a worker, which
    also drains, or is taken for dead while another has the run. Then the program is started
    again, until it has ended. It must end as it does undisturbed: with the same status, result,
    output and effects (:func:`effect`), no effect missing, added or with another value. A
    cancelled program may lack effects, and its clean-up may add some. ``check`` says what else
    must hold.

    Args:
      program: an async function of the SDK. It must not keep anything in
        variables that outlive a run.
      check: called with each :class:`Run`, the undisturbed one first; it raises what it
        finds wrong.
      operator: what people do meanwhile; see :func:`run`.
      faults: the faults to try. None: all that the program can have.
      only: the name of one case, as a failure gives it.
      may_fail: the program may fail undisturbed; in every case it must then fail with the
        same text. False: what it raises undisturbed is raised.
      options: for ``open_runtara``: ``signals``, ``on_pause``, ``pause_grace``, ``codec``; of a
        workflow ``args``, ``codec``, and ``workflows``: those of its children.

    Returns:
      The undisturbed run.

    Raises:
      BoundaryFailure: the first case that differs, with its name and how to run it alone.
      ConfigError: ``only`` names an unknown case, or ``faults`` an unknown fault.
    """
    wanted = _checked(faults, of_workflow=isinstance(program, Workflow))
    undisturbed = run(program, operator=operator, **options)
    if undisturbed.failure is not None and not may_fail:
        raise undisturbed.failure
    if undisturbed.conflicts:
        raise AssertionError(f"undisturbed: {_conflicts(undisturbed)}")
    if check is not None:
        _look(check, undisturbed)
    cases = [Case(fault, boundary) for boundary in undisturbed.boundaries for fault in wanted]
    if only is not None:
        named = [case for case in cases if str(case) == only]
        if not named:
            raise ConfigError(
                f"only={only!r} names no case; boundaries: {', '.join(undisturbed.boundaries)}"
            )
        cases = named
    for case in cases:
        try:
            disturbed = run(program, operator=operator, case=case, **options)
        except Exception as exc:
            problem = f"{type(exc).__name__}: {exc}"
            raise BoundaryFailure(case, problem, undisturbed, None) from exc
        problems = differences(undisturbed, disturbed)
        if problems:
            raise BoundaryFailure(case, "; ".join(problems), undisturbed, disturbed)
        if check is not None:
            try:
                _look(check, disturbed)
            except Exception as exc:
                problem = f"the check fails: {type(exc).__name__}: {exc}"
                raise BoundaryFailure(case, problem, undisturbed, disturbed) from exc
    return undisturbed


def _checked(faults: Iterable[Fault] | None, *, of_workflow: bool) -> list[Fault]:
    possible = [fault for fault in Fault if of_workflow or fault not in OF_WORKFLOWS]
    if faults is None:
        return possible
    try:
        wanted = [Fault(fault) for fault in faults]
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"faults must be some of {', '.join(Fault)}, not {faults!r}") from exc
    if not wanted:
        raise ConfigError("faults is empty: nothing would be tried")
    for fault in wanted:
        if fault not in possible:
            raise ConfigError(f"{fault} is a fault of workflows: give one made by @workflow")
    return wanted


def _look(check: Check, run: Run) -> None:
    made = check(run)
    if inspect.iscoroutine(made):
        made.close()
        raise TypeError("check must not be async: it would never be awaited")


def differences(undisturbed: Run, disturbed: Run) -> list[str]:
    """What a fault has changed."""
    problems = [_conflicts(disturbed)] if disturbed.conflicts else []
    expected, effects = undisturbed.effects, disturbed.effects
    problems += [
        f"effect {key!r} is {effects[key]!r}, undisturbed {value!r}"
        for key, value in expected.items()
        if key in effects and effects[key] != value
    ]
    cancelled = disturbed.status is InstanceStatus.CANCELLED
    if cancelled and disturbed.case is not None and disturbed.case.fault is Fault.CANCEL:
        return problems
    problems += [f"effect {key!r} is missing" for key in expected if key not in effects]
    problems += [
        f"effect {key!r} ({effects[key]!r}) is one too many"
        for key in effects
        if key not in expected
    ]
    for name in ("status", "result", "output", "error"):
        if name == "result" and not disturbed.returned:
            continue
        before, now = getattr(undisturbed, name), getattr(disturbed, name)
        if now != before:
            problems.append(f"its {name} is {now!r}, undisturbed {before!r}")
    return problems


def _conflicts(run: Run) -> str:
    return f"two different effects of one key: {', '.join(run.conflicts)}"
