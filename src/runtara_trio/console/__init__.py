"""The console: what instances do and wait for, in a browser, and what can be done about it.

``runtara-trio console`` serves it; :func:`app` is the ASGI application of it, to be mounted in one
of yours. Extra: ``runtara-trio[console]``.

app         the routes, from their functions
pages       what all pages share: rendering, actions that ask once, messages
live        pages that change by themselves
reach       the store, on Trio or from asyncio
people      who looks: tokens, proxies, roles
guard       what every request is checked by
listing     the list of instances, and actions on many
instance    one instance; timeline, payloads: what it did, and with what
acting      what can be done to it
waiting     questions to people; forms: from a JSON schema to a form and back
fleet       workers, queues, schedules
compare     two instances, step by step
audit       what people have done
metrics     what Prometheus scrapes
serving     a server of its own, on Trio
"""

from ..tokens import Person, Role
from .app import app
from .people import Authorize

__all__ = ["Authorize", "Person", "Role", "app"]
