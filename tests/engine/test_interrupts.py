"""Ctrl-C and SIGTERM, at the moments where they would tear something apart."""

from __future__ import annotations

import signal
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

from runtara_trio import Operator, Outcome, StoreError, open_backend
from runtara_trio.messages import RecordOutcome, Register
from runtara_trio.store.sqlite import failures, rows

from ..helpers.support import Watched, block


def test_ctrl_c_ends_a_block_as_stopped(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    sdks = []

    async def main() -> None:
        async with block(url) as sdk:
            sdks.append(sdk)
            await sdk.checkpoint("a")
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert sdks[0].outcome is Outcome.STOPPED


def test_ctrl_c_does_not_land_in_the_recording() -> None:
    """It comes while the outcome is recorded: that is finished, then it is raised."""
    sdks = []

    async def main() -> None:
        async with open_backend(":memory:") as memory:
            watched = Watched(memory)

            def interrupt(message: Any) -> None:
                if isinstance(message, RecordOutcome):
                    signal.raise_signal(signal.SIGINT)

            watched.before = interrupt
            async with open_backend(watched) as shared:
                async with block(shared) as sdk:
                    sdks.append(sdk)
                assert sdk.outcome is Outcome.COMPLETED
                await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert sdks[0].outcome is Outcome.COMPLETED


def test_ctrl_c_in_the_closing_of_a_backend_is_not_lost() -> None:
    sdks = []

    async def main() -> None:
        memory_closing: list[bool] = []

        class Closing(Watched):
            async def signals(self) -> Any:
                try:
                    await trio.sleep_forever()
                    yield
                finally:
                    memory_closing.append(True)
                    signal.raise_signal(signal.SIGINT)

        async with open_backend(":memory:") as memory:
            async with block(Closing(memory)) as sdk:
                sdks.append(sdk)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert sdks[0].outcome is Outcome.COMPLETED


@pytest.mark.parametrize("where", ["__aenter__", "__aexit__"])
def test_ctrl_c_in_the_frames_of_contextlib(where: str) -> None:
    """Those around our generators: the block is neither half open nor half closed."""
    hit = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        ours = frame.f_code.co_name == where and frame.f_code.co_filename.endswith("contextlib.py")
        if not ours or frame.f_locals["self"].gen.__name__ != "_run":
            return None

        def interrupt(frame: FrameType, event: str, argument: Any) -> None:
            if not hit:
                hit.append(frame)
                sys.settrace(before)
                signal.raise_signal(signal.SIGINT)

        return interrupt

    statuses = []

    async def main() -> None:
        async with open_backend(":memory:") as backend:
            try:
                sys.settrace(trace)
                async with block(backend) as sdk:
                    await sdk.checkpoint("a")
                await trio.sleep(30)  # here it comes where it was too late
            finally:
                with trio.CancelScope(shield=True):
                    page = await Operator(backend).list()
                    statuses.extend(one.status for one in page.instances)

    before = sys.gettrace()
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        sys.settrace(before)
    assert hit
    assert statuses == ([] if where == "__aenter__" else ["completed"])


def test_ctrl_c_inside_a_request_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes after the request: no transaction is left open."""
    save = rows.save

    def interrupted(*args: Any) -> bool:
        monkeypatch.setattr(rows, "save", save)
        signal.raise_signal(signal.SIGINT)
        return save(*args)

    async def main() -> None:
        async with open_backend(":memory:") as backend:
            with suppress(KeyboardInterrupt):
                async with block(backend) as sdk:
                    monkeypatch.setattr(rows, "save", interrupted)
                    await sdk.checkpoint("a")
                    await trio.sleep(30)
            assert sdk.outcome is Outcome.STOPPED
            assert (await Operator(backend).show("i")).checkpoints == 1

    trio.run(main)


async def test_sigterm_during_a_registration_that_fails(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program must not try again: it was asked to end."""
    monkeypatch.setattr(failures, "BUSY_TIMEOUT", 0.05)
    async with block(url):
        pass
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with open_backend(url) as backend:
        watched = Watched(backend)
        watched.before = lambda message: (
            signal.raise_signal(signal.SIGTERM) if isinstance(message, Register) else None
        )
        async with open_backend(watched) as shared:
            with pytest.raises(SystemExit) as caught:
                async with block(shared, "j"):
                    raise AssertionError("it does not run")
    other.close()
    assert caught.value.code == 128 + signal.SIGTERM
    assert isinstance(caught.value.__cause__, StoreError)
