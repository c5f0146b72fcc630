"""What decides, above any backend.

services    heartbeats, the watch for signals, the recording that nothing interrupts
block       one instance's run: its scope, its facts, its requests
signals     where a cancel signal becomes a cancelled scope
holding     a pause that keeps its tasks parked
recording   how an outcome gets recorded, whatever fails
past        what earlier runs have left
stored      their checkpoints, read in pages
visited     stored ids that a run never asked for
names       names of functions and types in ids
uses        ids that are used once in a run
sharing     tasks that make the same durable call share one run
deadlines   what cancels once a replay has ended
hints       who waits for a custom signal
boundary    where tasks stop for a pause, and the steps that it waits for
outcome     the table: what ends as what
interrupts  context managers in whose own code no Ctrl-C lands
stop        SIGTERM and the like
"""
