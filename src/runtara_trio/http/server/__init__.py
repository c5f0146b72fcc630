"""Servers over HTTP: a backend as a runtara-core 1.6.

server       an application on TCP ports, until it is drained
connection   one connection: requests in, answers out, and limits
reader       from bytes to requests
messages     what is asked and what is answered
routes       from method and path to what answers them
guard        who may ask
api          an application of calls behind a guard
instances    what the calls of instances are answered
checkpoints  of them: checkpoints and sleeps
signals      of them: signals
events       of them: events and ends
calls        what they share
bodies       the JSON that is read
operators    what the calls of operators are answered
past         of them: events and steps
listed       what they ask for in a query, and pages of what was found
"""
