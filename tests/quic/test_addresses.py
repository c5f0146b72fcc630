"""A server's name with several addresses, and threads that are the program's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from runtara_trio import Outcome, OutcomeNotRecorded, SdkConfig, Unreachable, open_runtara

from ..helpers.places import Place, free_port, served_place


class Resolver(trio.abc.HostnameResolver):
    """Names that ``/etc/hosts`` would have."""

    def __init__(self, *found: str) -> None:
        self.found = found

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (one, port)) for one in self.found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@contextmanager
def resolves_to(*found: str) -> Iterator[None]:
    before = trio.socket.set_custom_hostname_resolver(Resolver(*found))
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(before)


@contextmanager
def silence(port: int) -> Iterator[str]:
    """An address that takes all and answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taking:
        taking.bind(("127.0.0.2", port))
        yield "127.0.0.2"


def port_of(place: Place) -> int:
    return int(place.url.rpartition(":")[2])


@pytest.mark.parametrize("silent_first", [True, False])
async def test_a_silent_address_holds_nobody_up(silent_first: bool) -> None:
    async with served_place() as place:
        port = port_of(place)
        with silence(port) as silent:
            order = (silent, "127.0.0.1") if silent_first else ("127.0.0.1", silent)
            with resolves_to(*order), trio.fail_after(8):
                async with open_runtara(
                    f"quic://shop.test:{port}?verify=no", instance_id="i", tenant_id="t"
                ) as sdk:
                    await sdk.checkpoint("a")
    assert sdk.outcome is Outcome.COMPLETED


async def test_silence_alone_is_told_within_the_connect_timeout() -> None:
    port = free_port()
    with silence(port) as silent, resolves_to(silent, silent), trio.fail_after(10):
        config = SdkConfig(
            server_addr=f"shop.test:{port}", skip_cert_verification=True, connect_timeout_ms=500
        )
        with pytest.raises(Unreachable, match="no answer"):
            async with open_runtara(config, instance_id="i", tenant_id="t"):
                raise AssertionError("it does not run")


async def test_the_threads_of_the_program_are_not_ours() -> None:
    """All of Trio's are busy: a name is resolved all the same."""
    free = threading.Event()
    async with served_place() as place, trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(trio.to_thread.run_sync, free.wait)
        try:
            with trio.fail_after(20):
                url = f"quic://localhost:{port_of(place)}"
                async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
                    await sdk.checkpoint("a")
        finally:
            free.set()
    assert sdk.outcome is Outcome.COMPLETED


async def test_the_end_keeps_to_the_final_timeout_where_the_server_is_gone() -> None:
    with trio.fail_after(15), pytest.raises(OutcomeNotRecorded, match=r"within 0\.5 s"):
        async with trio.open_nursery() as nursery:
            left = trio.Event()

            async def serve(*, task_status: trio.TaskStatus[str]) -> None:
                async with served_place() as place:
                    task_status.started(place.url)
                    await left.wait()

            url = await nursery.start(serve)
            try:
                async with open_runtara(
                    url, instance_id="i", tenant_id="t", final_timeout=0.5
                ) as sdk:
                    await sdk.checkpoint("a")
                    left.set()
                    await trio.sleep(0.3)
                    ending = trio.current_time()
            except OutcomeNotRecorded as exc:
                assert trio.current_time() - ending < 3
                raised = exc
        raise raised
