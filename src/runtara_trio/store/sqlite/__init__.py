"""A store on SQLite: a file, or memory.

backend       the Backend
thread        runs its batches beside the Trio loop, or inline for ``:memory:``
database      one commit a batch, and what is due between them
file          the file: opening, the switch to WAL, whether it is still there
tables        the port: what answers ask
claims        runs of workflows: starting and claiming them
schedules     schedules
copies        attributes, and copies of instances
signals       signals and messages
queues        what queues allow
children      parents and children
runs          placing and recovering them, workers, ends
starting      a start in a transaction of somebody else's
lists         lists of instances, filtered
reading       pages of checkpoints and events, one instance
saving        checkpoints, the hot path
transact      a transaction of the user's
rows          checkpoints under their ids
leases        who has leased what
owners        how a dead owner is told from a living one
schema        tables and their versions
run_schema    those of workflows
migrating     how far a file's are, and bringing them to this version
failures      what goes wrong with files, and the remedies
locked        how long a store waits for another writer
"""
