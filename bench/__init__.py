"""The bench: what a checkpoint costs, beside the same work in plain sqlite3.

    nox -s bench             measure, and write docs/benchmarks.md
    nox -s bench -- --plot   and draw it
    nox -s bench -- --quick  a look: fewer rounds, printed only
    nox -s bench_steps       durable calls, beside DBOS's steps; docs/benchmarks-steps.md
    nox -s bench_postgres    checkpoints on PostgreSQL; docs/benchmarks-postgres.md
    nox -s bench_quic        over QUIC, beside the stock Rust SDK; docs/benchmarks-quic.md

checkpoints  throughput and latency, beside plain sqlite3 and beside a loop that never idles
idle         what an instance that only waits costs
starting     import, and process start to the first saved checkpoint
report       the results as a page and as a plot
steps        durable calls, fresh and replayed
postgres     checkpoints on PostgreSQL
dbos_steps   DBOS's steps, beside both
quic         calls over QUIC, of our client and of the Rust SDK, to a core and to our server

What is compared runs in turns, round by round; a ratio is the median of the rounds'
ratios, because the machine is never as fast in one minute as in the next.
"""
