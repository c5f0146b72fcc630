"""Settings: the fields, variables and defaults of the Rust SDK, and those of the stores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from .clock import Clock
from .errors import ConfigError
from .ids import check_instance_id, check_tenant_id, check_text

DEFAULT_SERVER = "127.0.0.1:8001"


class SdkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an SDK. Invalid values raise :class:`ConfigError` at once."""

    instance_id: str | None = None
    """The instance; RUNTARA_INSTANCE_ID. None: give it to ``open_runtara``."""

    tenant_id: str | None = None
    """The tenant that the instance belongs to; RUNTARA_TENANT_ID. None: give it to
    ``open_runtara``."""

    store: str | None = None
    """URL of an embedded store, ``sqlite:///orders.db`` or ``:memory:``;
    RUNTARA_DATABASE_URL. Or of a runtara-core 1.6, ``http://127.0.0.1:8001``; RUNTARA_HTTP_URL.
    None: the server at ``server_addr``."""

    server_addr: str = DEFAULT_SERVER
    """``host:port`` of a runtara-core; RUNTARA_SERVER_ADDR."""

    server_name: str = "localhost"
    """The name its certificate must carry; RUNTARA_SERVER_NAME."""

    skip_cert_verification: bool | None = None
    """RUNTARA_SKIP_CERT_VERIFICATION (``true`` or ``1``). None: certificates are
    not verified on loopback hosts, and verified elsewhere."""

    token: str | None = None
    """What a server over HTTP asks for (``serve --token-file``); RUNTARA_TOKEN. It is sent over
    https, or to this machine, and nowhere else. None: no server asks."""

    operators_token: str | None = None
    """The same for what operators ask (``serve --operators-port``); RUNTARA_OPERATORS_TOKEN."""

    connect_timeout_ms: int = 10_000
    """Milliseconds to connect; RUNTARA_CONNECT_TIMEOUT_MS."""

    request_timeout_ms: int = 30_000
    """Milliseconds for one shielded request; RUNTARA_REQUEST_TIMEOUT_MS."""

    signal_poll_interval_ms: int = 1_000
    """Milliseconds between two polls of ``poll_signal``, and between two polls of a server,
    which has no notifications; RUNTARA_SIGNAL_POLL_INTERVAL_MS. Stores notice signals within
    100 ms whatever it is."""

    heartbeat_interval_ms: int = 30_000
    """Milliseconds between heartbeats; 0 turns them off; RUNTARA_HEARTBEAT_INTERVAL_MS."""

    lease_ms: int = 30_000
    """Milliseconds that a lease lives without renewal; renewed every third of it."""

    history: Literal["steps", "none", "core"] = "steps"
    """What stores keep of the steps of an instance, beside their results: see
    :meth:`Operator.steps`. A server keeps none. "core": also, on a server too, a pair of custom
    events for each, ``step_debug_start`` and ``step_debug_end``, which Runtara's own tools show."""

    core: Literal["1.4.1", "1.6.4"] = "1.4.1"
    """The runtara-core whose tables a *new* store gets; ``core=`` in its URL goes before it. A core
    1.6.4 takes either, and adds what it misses; a core 1.4.1 takes its own alone."""

    clock: Clock | None = None
    """Where wall time is read; None: the system's clock, or Trio's MockClock in a test."""

    def __post_init__(self) -> None:
        if self.instance_id is not None:
            check_instance_id(self.instance_id)
        if self.tenant_id is not None:
            check_tenant_id(self.tenant_id)
        if self.store is not None:
            check_text("store", self.store)
        check_text("server_addr", self.server_addr)
        check_text("server_name", self.server_name)
        for name in ("token", "operators_token"):
            token = getattr(self, name)
            if token is not None and not _TOKEN.fullmatch(token):
                raise ConfigError(f"{name} is empty, or has characters that no token has")
        if self.skip_cert_verification not in (None, True, False):
            raise ConfigError(
                "skip_cert_verification must be True, False or None, "
                f"not {self.skip_cert_verification!r}"
            )
        if self.core not in ("1.4.1", "1.6.4"):
            raise ConfigError(f"core must be '1.4.1' or '1.6.4', not {self.core!r}")
        if self.history not in ("steps", "none", "core"):
            raise ConfigError(f"history must be 'steps', 'none' or 'core', not {self.history!r}")
        for name, least in _MILLISECONDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} must be a whole number of milliseconds, not {value!r}")
            if not least <= value <= _LONGEST_MS:
                raise ConfigError(f"{name} must be between {least} and {_LONGEST_MS}, not {value}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> SdkConfig:
        """Read the ``RUNTARA_…`` variables; RUNTARA_HTTP_URL goes before RUNTARA_SERVER_ADDR,
        and both before a store.

        Args:
          environ: where they are read. None: in ``os.environ``.

        Raises:
          ConfigError: RUNTARA_INSTANCE_ID or RUNTARA_TENANT_ID is missing, or a value is
            wrong; the text names the variable.
        """
        env = os.environ if environ is None else environ
        config = cls._partly_from_env(env)
        for field in ("instance_id", "tenant_id"):
            if getattr(config, field) is None:
                raise ConfigError(f"set {VARIABLES[field]}: the environment names no {field}")
        return config

    @classmethod
    def _partly_from_env(cls, env: Mapping[str, str]) -> SdkConfig:
        found: dict[str, Any] = {}
        for field, variable in VARIABLES.items():
            text = env.get(variable)
            if text:
                found[field] = _parsed(field, variable, text)
        if over_http := env.get(HTTP_VARIABLE):
            found["store"] = over_http
            found.pop("server_addr", None)
        elif "server_addr" in found:
            found.pop("store", None)
        return cls(**found)

    @classmethod
    def localhost(cls, instance_id: str, tenant_id: str) -> SdkConfig:
        """A runtara-core on this machine, its certificate not verified.

        Args:
          instance_id: the instance.
          tenant_id: the tenant it belongs to.
        """
        return cls(instance_id=instance_id, tenant_id=tenant_id, skip_cert_verification=True)

    @classmethod
    def embedded(cls, store: str, instance_id: str, tenant_id: str) -> SdkConfig:
        """An embedded store.

        Args:
          store: its URL, such as ``sqlite:///orders.db``.
          instance_id: the instance.
          tenant_id: the tenant it belongs to.
        """
        return cls(instance_id=instance_id, tenant_id=tenant_id, store=store)

    @property
    def url(self) -> str:
        """What is to be opened, the store's URL or else the server's."""
        return f"quic://{self.server_addr}" if self.store is None else self.store


VARIABLES = {
    "instance_id": "RUNTARA_INSTANCE_ID",
    "tenant_id": "RUNTARA_TENANT_ID",
    "store": "RUNTARA_DATABASE_URL",
    "server_addr": "RUNTARA_SERVER_ADDR",
    "server_name": "RUNTARA_SERVER_NAME",
    "skip_cert_verification": "RUNTARA_SKIP_CERT_VERIFICATION",
    "token": "RUNTARA_TOKEN",
    "operators_token": "RUNTARA_OPERATORS_TOKEN",
    "connect_timeout_ms": "RUNTARA_CONNECT_TIMEOUT_MS",
    "request_timeout_ms": "RUNTARA_REQUEST_TIMEOUT_MS",
    "signal_poll_interval_ms": "RUNTARA_SIGNAL_POLL_INTERVAL_MS",
    "heartbeat_interval_ms": "RUNTARA_HEARTBEAT_INTERVAL_MS",
}
"""Which variable sets which field."""

HTTP_VARIABLE = "RUNTARA_HTTP_URL"
CHECKPOINT_VARIABLE = "RUNTARA_CHECKPOINT_ID"

_TOKEN = re.compile(r"[!-~]+")  # what a header may carry, and RFC 6750 needs less
_LONGEST_MS = 10**12
_MILLISECONDS = {  # field: least value
    "connect_timeout_ms": 1,
    "request_timeout_ms": 1,
    "signal_poll_interval_ms": 1,
    "heartbeat_interval_ms": 0,
    "lease_ms": 100,
}


def environment() -> SdkConfig:
    """The environment's settings, without the ids that it does not set."""
    return SdkConfig._partly_from_env(os.environ)


def _parsed(field: str, variable: str, text: str) -> Any:
    if field == "skip_cert_verification":
        return text.lower() in ("true", "1")
    if field in _MILLISECONDS:
        try:
            return int(text)
        except ValueError:
            raise ConfigError(
                f"{variable} must be a whole number of milliseconds, not {text!r}"
            ) from None
    return text
