"""``open_backend``: a backend with its services as child tasks.

The services outlive the body, so that a cancelled scope around the block reaches the body
first and them last; and what the body raises is carried round the nursery, which would wrap
it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import trio

from .backend import Backend, Patience
from .clock import Clock, default_clock, is_steady
from .config import SdkConfig
from .engine.outcome import contains
from .engine.services import SharedBackend, keep_running
from .errors import ConfigError, NotSupported, SdkError
from .http.location import HTTPS, http_target, is_http
from .interrupts import protected_manager
from .quic.location import is_server, server_of_config, server_of_url
from .store.core import split_core
from .store.location import is_postgres, locate, needing_psycopg
from .store.sqlite.backend import open_sqlite
from .tasks import open_service_nursery, runs_on_trio
from .telemetry import current

Target = str | SdkConfig | Backend
"""A URL, a configuration that names one, or a bare backend."""

Opener = Callable[[Patience], AbstractAsyncContextManager[Backend]]

CLOSING = 30.0
"""Seconds that a backend's end waits for what does not answer; a block's own: what is left of
its ``final_timeout``."""


@protected_manager
async def open_backend(
    target: Target, *, create: bool = False, config: SdkConfig | None = None
) -> AsyncIterator[SharedBackend]:
    """Open a backend once, to be shared by any number of blocks and operators.

    Args:
      target: a URL (``sqlite:///orders.db``, ``:memory:``), an :class:`SdkConfig` (its
        store and its intervals count), or a bare :class:`Backend`, which gets services.
      create: whether any request makes a store that does not exist. False: only the first
        instance that registers does, so that an operator's wrong path makes no file.
      config: intervals, timeouts and clock, where ``target`` is not an :class:`SdkConfig`.

    Raises:
      ConfigError: nothing that this version opens.
    """
    check_on_trio()
    opening = _Opening(*_resolve(target, create, config))
    left: BaseException | None = None
    try:
        async with open_service_nursery() as services:
            services.start_soon(_serve, opening)
            try:
                await opening.ready.wait()
                yield opening.backend()
            except BaseException as exc:
                left = exc
            # From here on nothing but Ctrl-C can come in, and it is not lost.
            opening.close()
    except BaseExceptionGroup as group:
        if not contains(group, KeyboardInterrupt):
            raise
        if left is None or isinstance(left, trio.Cancelled):
            left = KeyboardInterrupt()
    if left is not None:
        try:
            raise left
        finally:
            left = None  # no cycle of exception, traceback and this frame


def check_shareable(
    target: Target,
    what: str,
    *,
    remedy: str = (
        "open it once with open_backend, and give the open backend to clients and workers"
    ),
) -> None:
    """Whether clients and workers can meet at a target; ``remedy``: what to do in memory.

    Raises:
      ConfigError: ``:memory:``; two opens are two stores.
      NotSupported: a server.
    """
    if isinstance(target, SdkConfig):
        url = target.url
    elif isinstance(target, str):
        url = target
    else:
        return
    if is_server(url) or is_http(url):
        raise NotSupported(
            f"{what} needs the store itself, not a server ({url}): give its URL, as "
            "sqlite:///shop.db or postgresql://host/shop"
        )
    url, _ = split_core(url)
    if not is_postgres(url) and locate(url).path is None:
        raise ConfigError(f"{what} on {url!r} would be alone with it: {remedy}")


def check_on_trio() -> None:
    """Raises SdkError where no Trio runs."""
    if not runs_on_trio():
        raise SdkError("runtara-trio runs on Trio: start the program with trio.run(main)")


def _resolve(
    target: Target, create: bool, config: SdkConfig | None
) -> tuple[SdkConfig, Clock, Opener]:
    config = target if isinstance(target, SdkConfig) else config or SdkConfig()
    clock = config.clock or default_clock()
    if isinstance(target, SdkConfig) and target.store is None:
        return config, clock, _quic(target, config, clock)
    if isinstance(target, (str, SdkConfig)):
        url = target if isinstance(target, str) else target.url
        if is_server(url):
            return config, clock, _quic(url, config, clock)
        if is_http(url):
            return config, clock, _http(url, config, clock)
        url, core = split_core(url)
        core = core or config.core
        if is_postgres(url):
            return config, clock, _postgres(url, config, create, core)
        location = msgspec.structs.replace(locate(url), core=core)
        return (
            config,
            clock,
            lambda patience: open_sqlite(
                location, lease_ms=config.lease_ms, clock=clock, patience=patience, create=create
            ),
        )
    if isinstance(target, Backend):
        return config, clock, lambda _: _bare(target)
    raise ConfigError(
        f"a target is a URL, an SdkConfig or a Backend, not a {type(target).__name__}: {target!r}"
    )


def _quic(target: str | SdkConfig, config: SdkConfig, clock: Clock) -> Opener:
    # Imported where it is needed: a program on a store starts in half the time without.
    from .quic.client.backend import open_quic

    server = server_of_url(target) if isinstance(target, str) else server_of_config(target)
    return lambda _: open_quic(server, config=config, clock=clock)


def _http(url: str, config: SdkConfig, clock: Clock) -> Opener:
    from .http.client.backend import open_http
    from .http.client.tls import context_for

    target = http_target(url, config)
    if target.server.scheme == HTTPS:
        context_for(target.server)
    return lambda patience: open_http(target, config=config, clock=clock, patience=patience)


def _postgres(url: str, config: SdkConfig, create: bool, core: str) -> Opener:
    with needing_psycopg(url):
        from .store.postgres.backend import named, open_postgres
    name = named(url)
    return lambda patience: open_postgres(
        url, name, config=config, patience=patience, create=create, core=core
    )


@asynccontextmanager
async def _bare(backend: Backend) -> AsyncIterator[Backend]:
    yield backend


class _Opening:
    """A backend on its way: what the one who opens it and its services share."""

    def __init__(self, config: SdkConfig, clock: Clock, opener: Opener) -> None:
        self.config = config
        self.clock = clock
        self.opener = opener
        self.patience = Patience(CLOSING)
        self.ready = trio.Event()
        self._shared: SharedBackend | None = None

    def opened(self, shared: SharedBackend) -> None:
        self._shared = shared
        self.ready.set()

    def backend(self) -> SharedBackend:
        assert self._shared is not None
        return self._shared

    def close(self) -> None:
        if self._shared is not None:
            self._shared.closed = True
        self.patience.begin()


@trio.lowlevel.enable_ki_protection
async def _serve(opening: _Opening) -> None:
    config, clock = opening.config, opening.clock
    with current.metered():
        async with opening.opener(opening.patience) as backend, trio.open_nursery() as nursery:
            shared = SharedBackend(backend, config, clock, nursery, opening.patience)
            for service in _services(shared):
                nursery.start_soon(keep_running, service)
            opening.opened(shared)


def _services(shared: SharedBackend) -> Iterator[Callable[[], Awaitable[None]]]:
    """What runs beside all blocks; what they trace with is made."""
    yield shared.watch
    tracer = current.tracer()
    if tracer is not None:
        from .telemetry.tracing import Tracing

        shared.tracing = Tracing(tracer, shared.request, kept=shared.keeps_history)
        yield shared.tracing.note
        yield shared.tracing.watch_waits
    if shared.steps.kept:
        yield shared.steps.run
    if shared.config.heartbeat_interval_ms:
        yield shared.heartbeat
        if not is_steady(shared.clock):
            yield shared.watch_lag
