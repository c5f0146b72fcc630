"""Stores: runtara's tables on SQLite and on PostgreSQL.

location    URLs to files
core        whether tables are those of the runtara-core that this package knows
values      what rows say, whichever database they are in
structs     what is handed between a database and the answers
tables      the port: what an answer asks of a database
answers     what each message is answered, once for both databases
driving     driving an answer whose database never waits
sqlite      a file, or memory: the port in SQL, threads, files
postgres    a PostgreSQL server: the port in SQL, connections, batches
"""
