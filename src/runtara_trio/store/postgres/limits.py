"""How long is waited for a server, and how much goes to it at once. Seconds, where not said."""

from __future__ import annotations

AWAY = 20.0
"""A message waits for a server that went away for so long."""

ANSWER = 8.0
"""A connection has so long for an answer: after that another one is tried."""

RETRY = 0.1
"""Before what failed is tried again."""

RETRY_BATCH = 0.5
"""What that grows to for a batch, while a server stays away."""

RETRY_SERVER = 1.0
"""What it grows to for what is needed first: the tables, the watch."""

DOUBT = 0.25
"""Between two checks of an owner that may be dead."""

POLL = 1.0
"""Between two polls for signals that nobody announced."""

POLL_POOLED = 0.5
"""The same where nothing can be heard; of changes to runs, too."""

LARGEST_BATCH = 256
"""Messages in a batch."""

MOST_BYTES = 16 * 2**20
"""Bytes of states in a batch of more than one message."""
