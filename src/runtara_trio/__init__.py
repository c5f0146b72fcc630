"""Durable execution for Trio programs. The layers are those of ``layers``, the highest first:

{layers}

A module imports only from its own layer and from those below. Data goes one way: verb →
message → backend → reply.
"""

from .backend import Backend
from .client.client import Client, open_client
from .client.handle import InstanceHandle
from .client.transaction import start_in
from .clock import Clock, SystemClock
from .codec import JSON, Codec
from .config import SdkConfig
from .engine.services import SharedBackend
from .errors import (
    CodecError,
    ConfigError,
    DurableError,
    InstanceBusy,
    InstanceCancelled,
    InstanceExists,
    InstanceFailed,
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
from .layers import drawn as _drawn
from .messages import AuditPage, CheckpointPage, EventPage, InstancePage, SignalAnswer, Waits
from .opening import open_backend
from .sdk.block import open_runtara
from .sdk.children import Child, Children
from .sdk.current import current_sdk
from .sdk.durable import durable
from .sdk.operator import Operator
from .sdk.parallel import DurableNursery
from .sdk.results import CheckpointResult
from .sdk.retry import Retry
from .sdk.runtara_sdk import RuntaraSdk
from .sdk.schedules import Schedule
from .sdk.starts import Start
from .sdk.workflow import Workflow, workflow
from .types import (
    AuditRecord,
    CheckpointRecord,
    CustomSignal,
    Event,
    EventType,
    InstanceDetails,
    InstanceInfo,
    InstanceStatus,
    InstanceSummary,
    Outcome,
    Queue,
    QueueInfo,
    Rate,
    RunInfo,
    RunState,
    ScheduleInfo,
    Signal,
    SignalType,
    StepInfo,
    StepKind,
    StepOutcome,
    WaitInfo,
    WorkerInfo,
)
from .worker.opening import open_worker, run_worker
from .worker.settings import WorkerHealth
from .worker.worker import Worker

if __doc__ is not None:  # python -OO has none
    __doc__ = __doc__.format(layers=_drawn())

__all__ = [
    "JSON",
    "AuditPage",
    "AuditRecord",
    "Backend",
    "CheckpointPage",
    "CheckpointRecord",
    "CheckpointResult",
    "Child",
    "Children",
    "Client",
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
    "InstanceExists",
    "InstanceFailed",
    "InstanceFinished",
    "InstanceHandle",
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
    "Queue",
    "QueueInfo",
    "Rate",
    "RegistrationError",
    "RequestTimeout",
    "Retry",
    "RunInfo",
    "RunState",
    "RuntaraSdk",
    "Schedule",
    "ScheduleInfo",
    "SdkConfig",
    "SdkError",
    "ServerError",
    "SharedBackend",
    "Signal",
    "SignalAnswer",
    "SignalRefused",
    "SignalType",
    "Start",
    "StepInfo",
    "StepKind",
    "StepOutcome",
    "StoreError",
    "SystemClock",
    "Unreachable",
    "WaitInfo",
    "Waits",
    "Worker",
    "WorkerHealth",
    "WorkerInfo",
    "Workflow",
    "current_sdk",
    "durable",
    "open_backend",
    "open_client",
    "open_runtara",
    "open_worker",
    "run_worker",
    "start_in",
    "workflow",
]
