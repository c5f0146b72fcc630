"""QUIC on Trio: what the client and the server share.

link      the seam to the network: datagrams, sent and received without waiting
driver    reads, keeps time and sends, for all connections of a link
shim      aioquic's private parts
tls       certificates: what is checked, and what is shown
"""
