"""The layers of the package: the one place where they are written down.

``runtara_trio.__doc__``, the README and the documentation show :func:`drawn`, and a test
reads every import with these tables: a module imports only from its own layer and from those
below, and strangers never import each other.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

_WIDTH = 30


class Layer(NamedTuple):
    """One layer: its packages and modules, and what they are."""

    names: tuple[str, ...]
    what: str


LAYERS = (
    Layer(("testing",), "the test kit"),
    Layer(("cli",), "the operator's commands"),
    Layer(("console",), "the same for a browser"),
    Layer(("exports", "words"), "what both say of an instance"),
    Layer(("demo",), "a user's program, killed and counted"),
    Layer(("blocking", "aio"), "clients for programs that do not run on Trio"),
    Layer(("contrib",), "adapters to other libraries"),
    Layer(("client", "worker"), "who starts runs of workflows, and who runs them"),
    Layer(("sdk",), "what users call: open_runtara, RuntaraSdk, durable, workflow, Operator"),
    Layer(("opening", "migrating"), "from a URL to an open backend, and to its tables"),
    Layer(("engine",), "what decides: signals to scopes, boundaries, outcomes, services"),
    Layer(("telemetry",), "traces and metrics for OpenTelemetry and Prometheus"),
    Layer(
        ("http.client", "http.server", "quic.client", "quic.server"),
        "what carries calls, and our servers",
    ),
    Layer(("quic.transport",), "QUIC on Trio: sockets, timers, certificates"),
    Layer(("quic", "http"), "servers and their names"),
    Layer(("remote", "serving"), "a server as a backend, each message in calls; and its clients"),
    Layer(("store.sqlite", "store.postgres"), "the two databases: their SQL, threads, connections"),
    Layer(("store.answers",), "what each message is answered, once for both"),
    Layer(("store",), "what an answer asks of a database"),
    Layer(("wire",), "frames and messages of the instance protocol"),
    Layer(("backend",), "the seam: what a backend is"),
    Layer(
        (
            "messages",
            "types",
            "errors",
            "ids",
            "codec",
            "config",
            "clock",
            "logs",
            "measures",
            "layers",
            "tokens",
            "urls",
        ),
        "plain values",
    ),
    Layer(("tasks", "interrupts", "threads"), "what tasks wait for, Ctrl-C, calls in threads"),
)
"""The highest first. The innermost name counts: ``store.sqlite.file`` is of ``store.sqlite``."""

STRANGERS = (
    ("store.sqlite", "store.postgres"),
    ("quic.client", "quic.server"),
    ("http.client", "http.server"),
    ("http", "quic"),
    ("client", "worker"),
    ("quic", "store"),
    ("engine", "store"),
    ("engine", "quic"),
    ("engine", "remote"),
    ("engine", "http"),
    ("remote", "store"),
    ("http", "store"),
)
"""Pairs that know nothing of each other, though one may stand above the other."""


def drawn() -> str:
    """The layers as a text, one a line."""
    lines: list[str] = []
    for layer in LAYERS:
        first, *rest = textwrap.wrap(", ".join(layer.names), _WIDTH)
        lines += [f"{first:{_WIDTH + 2}}{layer.what}", *rest]
    return "\n".join(lines)
