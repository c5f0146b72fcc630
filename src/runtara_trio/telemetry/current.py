"""Whether the program has an OpenTelemetry SDK, and the trace of the calling task.

Who has an SDK has imported OpenTelemetry's API and set a provider. So nothing is imported here
that is not there, and the API's own providers, which do nothing, cost nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from .. import logs, measures

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


def tracer() -> Tracer | None:
    """A tracer of the program's SDK; None: it has none."""
    with suppress(Exception):  # a provider of the program's that fails: nothing is traced
        provider = _of_sdk("trace", "get_tracer_provider")
        if provider is not None:
            made: Tracer = provider.get_tracer("runtara_trio")
            return made
    return None


def metered() -> AbstractContextManager[None]:
    """Tell the program's SDK what is measured, if it has one."""
    with suppress(Exception):
        provider = _of_sdk("metrics", "get_meter_provider")
        if provider is not None:
            from .meter import Metered

            return measures.told_to(Metered(provider))
    return nullcontext()


def text() -> str | None:
    """The context of the calling task, to be given to another process; None: there is no trace."""
    with suppress(Exception):
        if _of_sdk("trace", "get_tracer_provider") is not None:
            from .spans import text_of_current

            return text_of_current()
    return None


def _of_sdk(part: str, get: str) -> Any:
    """The provider, unless it is one of the API's own, which do nothing."""
    module = sys.modules.get(f"opentelemetry.{part}")
    if module is None:
        return None
    provider = getattr(module, get)()
    own = type(provider).__module__.startswith(f"opentelemetry.{part}")
    return None if own else provider


def _ids() -> Mapping[str, str]:
    trace = sys.modules.get("opentelemetry.trace")
    with suppress(Exception):
        context = None if trace is None else trace.get_current_span().get_span_context()
        if trace is not None and context is not None and context.is_valid:
            return {
                "trace_id": trace.format_trace_id(context.trace_id),
                "span_id": trace.format_span_id(context.span_id),
            }
    return {}


logs.span_ids = _ids
