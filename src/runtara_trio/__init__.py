"""Durable execution for Trio programs.

    testing              the test kit
    cli                  the operator's commands
    demo                 a user's program, killed and counted
    sdk                  what users call: open_runtara, RuntaraSdk, durable, Operator
    engine               what decides: services, signals → scopes, boundaries, outcome, stop
    -------------------- the seam: backend
    store                SQLite: a file, or in memory; PostgreSQL
    quic                 a runtara-core's client, and our server
    wire                 frames and messages of the instance protocol
    messages, types, errors, ids, codec, clock, config     plain values
    tasks, threads       what tasks wait for, and calls in threads

A module imports only from layers below its own. Data goes one way: verb → message →
backend → reply.
"""

from .backend import Backend
from .clock import Clock, SystemClock
from .codec import JSON, Codec
from .config import SdkConfig
from .engine.opening import open_backend
from .engine.services import SharedBackend
from .errors import (
    CodecError,
    ConfigError,
    DurableError,
    InstanceBusy,
    InstanceCancelled,
    InstanceFinished,
    InstancePaused,
    LeaseLost,
    NonRetryable,
    NotSupported,
    OutcomeNotRecorded,
    RegistrationError,
    RequestTimeout,
    SdkError,
    ServerError,
    SignalRefused,
    StoreError,
    Unreachable,
)
from .messages import CheckpointPage, EventPage, InstancePage, SignalAnswer
from .sdk.current import current_sdk
from .sdk.durable import durable
from .sdk.instance import open_runtara
from .sdk.operator import Operator
from .sdk.parallel import DurableNursery
from .sdk.results import CheckpointResult
from .sdk.retry import Retry
from .sdk.runtara_sdk import RuntaraSdk
from .types import (
    CheckpointRecord,
    CustomSignal,
    Event,
    EventType,
    InstanceDetails,
    InstanceInfo,
    InstanceStatus,
    InstanceSummary,
    Outcome,
    Signal,
    SignalType,
)

__all__ = [
    "JSON",
    "Backend",
    "CheckpointPage",
    "CheckpointRecord",
    "CheckpointResult",
    "Clock",
    "Codec",
    "CodecError",
    "ConfigError",
    "CustomSignal",
    "DurableError",
    "DurableNursery",
    "Event",
    "EventPage",
    "EventType",
    "InstanceBusy",
    "InstanceCancelled",
    "InstanceDetails",
    "InstanceFinished",
    "InstanceInfo",
    "InstancePage",
    "InstancePaused",
    "InstanceStatus",
    "InstanceSummary",
    "LeaseLost",
    "NonRetryable",
    "NotSupported",
    "Operator",
    "Outcome",
    "OutcomeNotRecorded",
    "RegistrationError",
    "RequestTimeout",
    "Retry",
    "RuntaraSdk",
    "SdkConfig",
    "SdkError",
    "ServerError",
    "SharedBackend",
    "Signal",
    "SignalAnswer",
    "SignalRefused",
    "SignalType",
    "StoreError",
    "SystemClock",
    "Unreachable",
    "current_sdk",
    "durable",
    "open_backend",
    "open_runtara",
]
