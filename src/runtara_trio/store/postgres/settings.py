"""What is set for the sessions of connections: those that are lent, the queue's, the owner's."""

from __future__ import annotations

from typing import NamedTuple

_NEVER_IDLE = (
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
)


class Settings(NamedTuple):
    """What is set for a connection."""

    session: str
    """Once, where it has a session of its own."""
    local: str
    """In each transaction, where it has none."""


LENT = Settings(
    f"""
-- Planned anew for each of its parameters, a batch takes three times as long.
SET plan_cache_mode = force_generic_plan;
-- A process that is stopped inside a transaction must not lock others out for good.
SET idle_in_transaction_session_timeout = 5000;
-- What a database or a role says of these is for other programs.
SET default_transaction_isolation = 'read committed';
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off';
{_NEVER_IDLE};
""",
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', true),"
    " set_config('idle_in_transaction_session_timeout', '5000', true),"
    " set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)",
)

QUEUE = Settings(
    f"""{LENT.session}
-- Nobody waits long for an instance that somebody else has locked.
SELECT set_config('lock_timeout', '1s', false) WHERE current_setting('lock_timeout') = '0';
""",
    f"{LENT.local}, set_config('lock_timeout', CASE current_setting('lock_timeout')"
    " WHEN '0' THEN '1s' ELSE current_setting('lock_timeout') END, true)",
)

OWNER = Settings(
    # A session whose client has gone gives its lock up.
    f"""
SET statement_timeout = 5000;
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3;
{_NEVER_IDLE};
""",
    "SET LOCAL statement_timeout = 5000",
)
