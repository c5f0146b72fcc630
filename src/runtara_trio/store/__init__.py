"""Stores: the verbs on the tables of runtara-core 1.4.1.

location       URLs to files
rules          what may be done in which state: pure tables, for both databases

sqlite         a file, or memory: the Backend that others open
thread         runs its batches beside the Trio loop, or inline for ``:memory:``
database       one commit a batch, and what is due between them
file           the file: opening, the switch to WAL, whether it is still there
failures       what goes wrong with files, and the remedies
locked         how long a store waits for another writer
verbs          the answers to an instance's messages
saving         checkpoints, the hot path
operating      the answers to an operator's messages
leases         who holds what
owners         how a dead owner is told from a living one
schema         tables and their versions

postgres       a PostgreSQL server: the Backend, its queue, its connections, its watch
pg_connection  one connection on Trio's readiness waits
pg_hosts       which of several hosts to connect to
pg_pooler      whether a pooler keeps sessions together
pg_queue       what goes out in batches: checkpoints, their reads, outcomes
pg_saving      checkpoints, the hot path: a queue as one statement
pg_outcomes    outcomes: a queue as one transaction
pg_verbs       the answers to an instance's messages
pg_operating   the answers to an operator's messages
pg_rows        reading and locking instances
pg_owner       this process as an owner: a lock and a thread
pg_liveness    which owners live
pg_schema      tables and their versions
pg_failures    what goes wrong with servers, and the remedies
"""
