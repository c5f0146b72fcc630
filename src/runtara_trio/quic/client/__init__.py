"""The client: ``remote`` over QUIC.

backend        opens it
asking         a call as a frame
session        a server whose connection comes and goes
connection     calls on the streams of one connection
"""
