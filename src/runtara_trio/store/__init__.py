"""Embedded stores: the verbs on the tables of runtara-core 1.4.1.

sqlite      the Backend that others open
thread      runs its batches beside the Trio loop, or inline for ``:memory:``
database    one commit a batch, and what is due between them
file        the file: opening, the switch to WAL, whether it is still there
failures    what goes wrong with files, and the remedies
verbs       the answers to an instance's messages
operating   the answers to an operator's messages
leases      who holds what
owners      how a dead owner is told from a living one
schema      tables and their versions
rules       what may be done in which state: pure tables
location    URLs to files
"""
