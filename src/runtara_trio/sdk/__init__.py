"""What users call.

block           open_runtara
runtara_sdk     RuntaraSdk, the verbs
facts           what it says of its instance
manual          signals for programs that handle them themselves
durable         @durable
workflow        @workflow
arguments       its arguments, as bytes and back
keys            the checkpoint id of a durable call
key_types       the types in it that JSON does not tell
returning       a result, as bytes and back
failing         its final failure, saved and raised again
retry           its attempts
parallel        nurseries and maps
paths           where in the tree of ids a task works
waiting         durable sleeps, waits for signals, deadlines
asyncio_bridge  coroutines of asyncio libraries
results         CheckpointResult
operator        Operator, for whoever runs the instances: its questions
steering        what it does to one instance
many            what it does to all that a filter finds
removing        what it removes
fleet           what it and a client do with workers, queues and schedules
filters         which instances a list or a count is about
current         current_sdk
"""
