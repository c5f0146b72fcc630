"""The instance protocol over QUIC: a client of it that is a backend, and a server of any.

location    URLs to servers
names       the protocol's numbers and the SDK's names
transport   QUIC on Trio, for both sides
client      a runtara-core, or ``runtara-trio serve``, as a backend
server      any backend behind the protocol
"""
