"""A store on a PostgreSQL server.

backend       the Backend
preparing     what must be there first: tables, an owner
queue         what goes out in batches: checkpoints, their reads, outcomes
saving        checkpoints, the hot path: a queue as one statement
transact      a transaction of the user's
transactions  messages in transactions: one, or many outcomes at once
tables        the port: what answers ask
rows          instances, locked and read
outcomes      outcomes: many as one statement
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
upkeep        heartbeats, and what clears up
job           a message on its way
pool          connections that are lent
connection    one connection on Trio's readiness waits
hosts         which of several hosts to connect to
pooler        whether a pooler keeps sessions together
pooled        a connection where it does not
owner         this process as an owner: a lock and a thread
liveness      which owners live
watch         what waits for the instances of this owner
schema        tables and their versions
migrating     how far a database's are, and bringing them to this version
settings      what is set in each session
limits        how long is waited for a server, and how much goes to it at once
failures      what goes wrong with servers, and the remedies
"""
