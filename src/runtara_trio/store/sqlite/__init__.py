"""A store on SQLite: a file, or memory.

backend       the Backend
thread        runs its batches beside the Trio loop, or inline for ``:memory:``
database      one commit a batch, and what is due between them
file          the file: opening, the switch to WAL, whether it is still there
tables        the port: what answers ask
reading       pages of checkpoints, events and instances
saving        checkpoints, the hot path
rows          checkpoints under their ids
leases        who has leased what
owners        how a dead owner is told from a living one
schema        tables and their versions
failures      what goes wrong with files, and the remedies
locked        how long a store waits for another writer
"""
