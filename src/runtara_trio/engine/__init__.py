"""What decides, above any backend.

opening     open_backend: a backend with its services
services    heartbeats, the watch for signals, the recording that nothing interrupts
block       one instance's run: its scope, its facts, its requests
signals     where a cancel signal becomes a cancelled scope
recording   how an outcome gets recorded, whatever fails
visited     stored ids that a run never asked for
boundary    where tasks stop for a pause, and the steps that it waits for
outcome     the table: what ends as what
interrupts  context managers in whose own code no Ctrl-C lands
stop        SIGTERM and the like
"""
