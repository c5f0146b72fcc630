"""The operator's command line.

main       the commands
options    what commands share
reading    list, show, events, checkpoints
steering   signal, cancel, pause, resume, prune
running    run: a block around somebody's function
working    worker, workers
starting   start, result
migrating  migrate
health     worker --health-port
serving    serve: its options
server     serve: the server
demo       how the demo looks
tables     how instances look, for people and for scripts
"""
