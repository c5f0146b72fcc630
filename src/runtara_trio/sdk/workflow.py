"""``@workflow``: an async function that workers run as instances.

Nothing is registered globally: a worker runs the workflows that it was given, and what is
stored is a name and a version.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, TypeVarTuple, overload

from ..clock import Seconds, check_seconds
from ..codec import Codec, Place, at, decode, encode
from ..errors import ConfigError
from ..ids import check_name_of
from .arguments import Arguments
from .returning import Returns

if TYPE_CHECKING:
    from .runtara_sdk import RuntaraSdk

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

DEFAULT_QUEUE = "default"

LARGEST_VERSION = 2**31 - 1


class Workflow(Generic[*Ts, T]):
    """An async function and how it is run. Calling it runs the function as it stands."""

    def __init__(
        self,
        function: Callable[[RuntaraSdk, *Ts], Coroutine[Any, Any, T]],
        *,
        name: str,
        queue: str,
        version: int,
        max_attempts: int,
        retry_delay: float,
        timeout: float | None,
        locals_: dict[str, Any],
    ) -> None:
        self._function = self.__wrapped__ = function
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.name = name
        """What is stored, and what clients and workers agree on."""
        self.queue = queue
        self.version = version
        self.max_attempts = max_attempts
        self.retry_delay = retry_delay
        """Seconds before the second attempt; they double with each."""
        self.timeout = timeout
        """Seconds for the whole instance; None: as long as it takes."""
        self._arguments = Arguments(name, function, locals_)
        self._returns = Returns(f"the workflow {name}", function, locals_)

    def __call__(self, sdk: RuntaraSdk, *args: *Ts) -> Coroutine[Any, Any, T]:
        """Run the function in the caller's block: for composition, and for plain tests."""
        return self._function(sdk, *args)

    def __repr__(self) -> str:
        return f"<workflow {self.name} {self.version}>"


AnyWorkflow = Workflow[*tuple[Any, ...], Any]
"""A workflow of whatever arguments and result."""


def encode_arguments(workflow: AnyWorkflow, codec: Codec, args: tuple[Any, ...]) -> bytes:
    """Arguments as they are stored. Raises TypeError: too few or too many; CodecError."""
    return workflow._arguments.encode(codec, args)


async def run_workflow(workflow: AnyWorkflow, sdk: RuntaraSdk, codec: Codec, given: bytes) -> bytes:
    """Run a workflow with stored arguments. What it returned, encoded.

    Raises:
      CodecError: an argument is not of its annotation, or the result has no encoding.
    """
    workflow._returns.check(codec)
    instance = sdk.instance_id
    args = workflow._arguments.decode(at(codec, Place(instance, "input")), given)
    result = await workflow._function(sdk, *args)
    return workflow._returns.encode(at(codec, Place(instance, "output")), instance, result)


def decode_output(
    workflow: AnyWorkflow | None,
    codec: Codec,
    instance_id: str,
    data: bytes,
    type: type[Any] | None,
) -> Any:
    """The stored result of an instance, as a ``type``. None: as what its workflow returns, if that
    is known, else as the codec makes of it.

    Raises:
      CodecError: it is not of the type.
    """
    bound = at(codec, Place(instance_id, "output"))
    if type is None and workflow is not None:
        workflow._returns.check(codec)
        return workflow._returns.decode(bound, instance_id, data)
    wanted: Any = Any if type is None else type
    return decode(bound, f"the result of instance {instance_id!r}", data, wanted)


def encode_any(codec: Codec, name: str, args: tuple[Any, ...]) -> bytes:
    """Arguments of a workflow that is known by its name alone."""
    return encode(codec, f"the arguments of the workflow {name}", list(args))


class WorkflowDecorator(Protocol):
    """What ``workflow(...)`` gives: it keeps the types of arguments and result."""

    def __call__(
        self, function: Callable[[RuntaraSdk, *Ts], Coroutine[Any, Any, T]], /
    ) -> Workflow[*Ts, T]: ...


@overload
def workflow(
    function: Callable[[RuntaraSdk, *Ts], Coroutine[Any, Any, T]], /
) -> Workflow[*Ts, T]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    version: int = 1,
    max_attempts: int = 1,
    retry_delay: Seconds = 1.0,
    timeout: Seconds | None = None,
) -> WorkflowDecorator: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    version: int = 1,
    max_attempts: int = 1,
    retry_delay: Seconds = 1.0,
    timeout: Seconds | None = None,
) -> Any:
    """Make an async function ``f(sdk, *arguments)`` a workflow, for :func:`open_worker` and
    :meth:`Client.start`.

    Arguments are positional. They are stored as an array by the codec, and decoded to their
    annotations before the function runs. What it returns is the instance's output.

    Args:
      name: what is stored. None: the function's own name. It must stay the same when the
        program is changed.
      queue: where its runs wait for a worker, unless a start says otherwise.
      version: a whole number. A worker runs only the versions that it was given.
      max_attempts: how often the whole function is run, where an exception leaves it. What is
        saved is not done again; saved failures are forgotten.
      retry_delay: seconds before the second attempt; they double with each, up to an hour.
      timeout: seconds from the first start for the whole instance. Then the body is cancelled,
        and the instance fails.

    Raises:
      TypeError: parameters that are no plain positional ones.
      ConfigError: an invalid argument.
    """
    locals_ = dict(sys._getframe(1).f_locals)

    def decorate(function: Callable[..., Any]) -> AnyWorkflow:
        if isinstance(function, Workflow) or not inspect.iscoroutinefunction(function):
            raise TypeError(f"@workflow is for async functions, not for {function!r}")
        called = check_name_of("name", function.__name__ if name is None else name)
        return Workflow(
            function,
            name=called,
            queue=check_name_of("queue", queue),
            version=check_version(version),
            max_attempts=_check_attempts(called, max_attempts),
            retry_delay=check_seconds(f"retry_delay of {called}", retry_delay),
            timeout=None
            if timeout is None
            else check_seconds(f"timeout of {called}", timeout, positive=True),
            locals_=locals_,
        )

    return decorate if function is None else decorate(function)


def check_version(value: object) -> int:
    """A workflow's version. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_VERSION:
        raise ConfigError(f"version must be a whole number from 1 to 2**31 - 1, not {value!r}")
    return value


def _check_attempts(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_VERSION:
        raise ConfigError(
            f"max_attempts of {name} must be a whole number from 1 to 2**31 - 1, not {value!r}"
        )
    return value
