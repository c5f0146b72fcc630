"""The instance protocol over HTTP: a client of it that is a backend, and a server of any.

location   URLs to servers
bodies     the JSON of requests and answers
stream     TCP on Trio, for both
client     a runtara-core 1.6 as a backend
server     any backend as a runtara-core 1.6
"""
