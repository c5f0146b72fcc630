"""What decides, above any backend.

services    heartbeats, the watch for signals, the recording that nothing interrupts
block       one instance's run: its scope, and the parts that it is wired of
state       whose instance it is, and where its run stands
requests    what leaves a block: its messages
inbox       what comes in from outside: signals, hints
ending      how it ends: what the body says, what is recorded
signals     where a cancel signal becomes a cancelled scope
holding     pauses that keep their tasks parked
outcome     the table: what ends as what
recording   how an outcome gets recorded, whatever fails
boundary    where tasks stop for a pause, and the steps that it waits for
past        what earlier runs have left
stored      their checkpoints, read in pages
visited     stored ids that a run never asked for
names       names of functions and types in ids
uses        ids that are used once in a run
sharing     tasks that make the same durable call share one run
deadlines   what cancels once a replay has ended
waits       what the tasks of a run wait for, and what its worker does with that
ends        who waits for the ends of runs
hints       who waits for a custom signal
stop        SIGTERM and the like
"""
