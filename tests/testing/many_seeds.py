"""many_seeds.py [COUNT] [FIRST]: simulate each scenario with so many seeds, in all processors."""

from __future__ import annotations

import multiprocessing
import os
import sys

from runtara_trio.testing import SimulationFailed, simulate

from ..helpers.fleets import MIXED, RATED, SHOP

SCENARIOS = {"places": SHOP, "rate": RATED, "mixed": MIXED}
PORTION = 50


def portion(named: tuple[str, int, int]) -> tuple[str, int, str | None]:
    """Simulate some seeds. The failure, as a text; None: nothing was found."""
    name, first, last = named
    try:
        simulate(**SCENARIOS[name], seeds=range(first, last))
    except SimulationFailed as failed:
        return name, first, str(failed)
    return name, first, None


def main(count: int, first: int) -> int:
    """The exit code: how many portions have failed."""
    portions = [
        (name, start, min(start + PORTION, first + count))
        for start in range(first, first + count, PORTION)
        for name in SCENARIOS
    ]
    failed = 0
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for done, (name, start, text) in enumerate(pool.imap_unordered(portion, portions), 1):
            if text is not None:
                failed += 1
                print(f"scenario {name}, {text}\n", flush=True)
            elif done % 10 == 0:
                print(f"{done} of {len(portions)} portions; {name} from {start}", flush=True)
    print(f"{len(portions) - failed} passed, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*(given + [1000, 0][len(given) :])))
