"""The server: a backend behind the instance protocol.

server       all of it, until it is drained
listener     datagrams to connections
connection   requests on the streams of one connection, and limits
answers      what each call is answered
"""
