"""What an editor shows beside a call: each public function says what its parameters are."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import runtara_trio
from runtara_trio import aio, blocking
from runtara_trio.worker.opening import WorkerOptions

INNER = {"SharedBackend", "Worker.held", "Worker.freed", "Worker.until_news", "Worker.end_with"}
"""What is reached from public names, and is called by the package alone."""


def _public() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in (runtara_trio, aio, blocking):
        for name in module.__all__:
            found = getattr(module, name)
            shown = f"{module.__name__}.{name}"
            if inspect.isfunction(found):
                yield shown, found
            elif inspect.isclass(found) and name not in INNER:
                for method, function in inspect.getmembers(found, callable):
                    ours = getattr(function, "__module__", "") or ""
                    if (
                        not method.startswith("_")
                        and f"{name}.{method}" not in INNER
                        and ours.startswith("runtara_trio")
                        and not inspect.isclass(function)
                    ):
                        yield f"{shown}.{method}", function


PUBLIC = dict(_public())

LIKE_MANY = {"statuses", "tenant_id", "progress", "filters"}
"""What the verbs on many have in common, and their class says once."""


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_names_each_parameter(name: str) -> None:
    function = PUBLIC[name]
    text = inspect.getdoc(function)
    assert text, f"{name} has no docstring"
    missing = [
        parameter
        for parameter in inspect.signature(function).parameters
        if parameter != "self" and not re.search(rf"\b{parameter}\b", text)
    ]
    if name.endswith("_many") and "start" not in name:
        missing = [one for one in missing if one not in LIKE_MANY]
    assert not missing, f"{name} does not say what {', '.join(missing)} are"


def test_a_worker_is_run_with_the_options_of_an_open_one() -> None:
    """An editor completes them; they stand twice, as ``Unpack`` wants it."""
    given = inspect.signature(runtara_trio.open_worker).parameters.values()
    options = {one.name for one in given if one.kind is one.KEYWORD_ONLY}
    assert set(WorkerOptions.__annotations__) == options


def test_it_looks_at_what_users_call() -> None:
    assert {
        "runtara_trio.open_runtara",
        "runtara_trio.RuntaraSdk.checkpoint",
        "runtara_trio.Operator.cancel",
        "runtara_trio.Client.set_queue",
        "runtara_trio.aio.Client.start",
        "runtara_trio.blocking.InstanceHandle.result",
    } <= set(PUBLIC)
