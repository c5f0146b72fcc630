"""What can go wrong, as one tree, and what the reader should do about each.

SdkError                     a rule of the SDK was broken: the text says which
├─ ConfigError               fix the named setting or argument (also a ValueError)
│   └─ NotSupported          only a store answers this: give the store's URL
├─ StoreError                names the file or server and the remedy
├─ Unreachable               says the address and what was tried
│   └─ RequestTimeout        says the call, and whether it may have been carried out
├─ ServerError               the call was refused: ``call``, ``code``, ``message``
├─ RegistrationError         the instance cannot be run here
│   ├─ InstanceFinished      read its result from the error, or pass ``revive=True``
│   └─ InstanceBusy          somebody runs it: wait for them, or stop them
├─ InstanceExists            choose another id, or start what it was started for
├─ InstanceFailed            the instance whose result was waited for: ``status``, ``error``
├─ SignalRefused             to the operator: says why the signal was not taken
├─ CodecError                the value, the type and the codec do not fit
├─ LeaseLost                 another owner took the instance: end, it goes on there
├─ OutcomeNotRecorded        the block ended, but the backend does not know it
└─ InstanceCancelled, InstancePaused     raised in ``signals="manual"`` only

Two are no ``SdkError``, for they are of the program: ``NonRetryable``, which a program
raises where a durable function is not to be tried again, and ``DurableError``, which stands
for the saved failure of a durable call.
"""

from __future__ import annotations

from datetime import datetime


class NonRetryable(Exception):
    """For programs to raise, or to derive from: no retry of a durable function helps."""


class DurableError(Exception):
    """The final failure of a durable call, as an earlier run saved it, where its own class
    cannot be made again.

    ``type`` is the name of that class, ``message`` its text, ``traceback`` the traceback of
    the run that failed, as text.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(type, message)
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


def message_of(error: BaseException) -> str:
    """The text of an exception of the user's, which may fail to make one."""
    try:
        return str(error)
    except Exception as exc:
        return f"(its text cannot be made: {type(exc).__name__})"


class SdkError(Exception):
    """Base of every error of this package."""


class ConfigError(SdkError, ValueError):
    """A setting or an argument is wrong; the text names it, its value and the remedy."""


class NotSupported(ConfigError):
    """The protocol has no such call: give the URL of a store."""


class StoreError(SdkError):
    """A store cannot do what was asked; the text names the file and the remedy.

    ``transient`` is true where waiting may help (a lock, a full disk).
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class Unreachable(SdkError):
    """The backend could not be reached; the text names the address and what was tried."""


class RequestTimeout(Unreachable):
    """A call got no answer in time; the text says whether it may have been carried out."""


class ServerError(SdkError):
    """The backend refused a call.

    ``call`` is what was asked, in the words of the SDK or of the command line; ``message``
    names the instance and says why. ``code`` is the server's, where one was asked
    (``CHECKPOINT_ERROR`` and the like); without one it is made of ``call`` in the same way.
    """

    def __init__(self, call: str, code: str, message: str) -> None:
        super().__init__(f"{call}: {message}")
        self.call = call
        self.code = code or f"{call.upper()}_ERROR"
        self.message = message


class RegistrationError(SdkError):
    """The instance cannot be registered."""


class InstanceFinished(RegistrationError):
    """The instance ended already; its result is here.

    ``status`` is the final :class:`~runtara_trio.InstanceStatus`, ``output`` the bytes
    it completed with, ``error`` the text it failed with (None where there is none).
    """

    def __init__(
        self, instance_id: str, status: str, output: bytes | None, error: str | None
    ) -> None:
        super().__init__(f"instance {instance_id!r} is {status}; pass revive=True to run it again")
        self.instance_id = instance_id
        self.status = status
        self.output = output
        self.error = error


class InstanceBusy(RegistrationError):
    """A living owner runs the instance now.

    ``holder`` says who (host and process), ``until`` when its lease would run out if it
    stopped renewing at this moment.
    """

    def __init__(self, instance_id: str, holder: str, until: datetime | None) -> None:
        when = "" if until is None else f", leased until {until:%H:%M:%S} UTC and renewed"
        super().__init__(
            f"instance {instance_id!r} is run by {holder}{when}; "
            "wait for its end, or pause or cancel it"
        )
        self.instance_id = instance_id
        self.holder = holder
        self.until = until


class InstanceExists(SdkError):
    """A start's id is another instance's; nothing was started under it."""

    def __init__(self, instance_id: str, workflow: str | None, *, same: bool = False) -> None:
        of = "no workflow's" if workflow is None else f"of the workflow {workflow!r}"
        why = "if_exists='fail'" if same else "it was started for something else"
        super().__init__(f"instance {instance_id!r} exists, {of}: {why}; choose another id")
        self.instance_id = instance_id
        self.workflow = workflow


class InstanceFailed(SdkError):
    """The instance whose result was waited for has none.

    ``status`` is FAILED or CANCELLED of :class:`~runtara_trio.InstanceStatus`; ``error`` is the
    text it failed with, traceback included (None: it is not set).
    """

    def __init__(self, instance_id: str, status: str, error: str | None) -> None:
        told = "" if error is None else f": {error.partition(chr(10))[0]}"
        super().__init__(f"instance {instance_id!r} is {status}{told}")
        self.instance_id = instance_id
        self.status = status
        self.error = error


class SignalRefused(SdkError):
    """A signal was not taken; the text tells the operator why."""


class CodecError(SdkError):
    """A value cannot be encoded, or stored bytes are not of the type asked for."""


class LeaseLost(SdkError):
    """Another owner took the instance over; nothing that this block writes is kept."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"the lease of instance {instance_id!r} was lost: another owner took it over, "
            "or an operator's cancel was carried out while this process did not answer"
        )
        self.instance_id = instance_id


class OutcomeNotRecorded(SdkError):
    """The outcome of the block could not be recorded; the next start decides again."""


class InstanceCancelled(SdkError):
    """Manual mode: ``check_cancelled`` found a cancel signal. Let it leave the block."""

    def __init__(self, message: str = "an operator cancelled this instance") -> None:
        super().__init__(message)


class InstancePaused(SdkError):
    """Manual mode: ``check_paused`` found a pause signal. Let it leave the block."""

    def __init__(self, message: str = "an operator paused this instance") -> None:
        super().__init__(message)
