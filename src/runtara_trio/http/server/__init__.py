"""Servers over HTTP: a backend as a runtara-core 1.6.

server       an application on TCP ports, until it is drained
connection   one connection: requests in, answers out, and limits
reader       from bytes to requests
messages     what is asked and what is answered
routes       from method and path to what answers them
guard        who may ask
instances    what the calls of instances are answered
checkpoints  of them: checkpoints and sleeps
signals      of them: signals
events       of them: events and ends
calls        what they share
bodies       the JSON that is read
"""
