"""What is set in each session: of a connection that is lent, of the queue's, of the owner's."""

from __future__ import annotations

_NEVER_IDLE = (
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
)

LENT = f"""
-- Planned anew for each of its parameters, a batch takes three times as long.
SET plan_cache_mode = force_generic_plan;
-- A process that is stopped inside a transaction must not lock others out for good.
SET idle_in_transaction_session_timeout = 5000;
-- What a database or a role says of these is for other programs.
SET default_transaction_isolation = 'read committed';
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off';
{_NEVER_IDLE};
"""

QUEUE = """
-- Nobody waits long for an instance that somebody else has locked.
SELECT set_config('lock_timeout', '1s', false) WHERE current_setting('lock_timeout') = '0';
"""
"""Beside those of a connection that is lent."""

OWNER = (
    "SET statement_timeout = 5000",
    # A session whose client has gone gives its lock up.
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
    _NEVER_IDLE,
)
