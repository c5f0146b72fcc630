"""The instance protocol over QUIC: a client of it that is a backend, and a server of any.

location      URLs to servers
tls           certificates: what is checked, and what is shown
link          the seam to the network
driver        reads, keeps time and sends, for all connections of a link
shim          aioquic's private parts
calling       the client's side of a connection: calls on streams
session       a server whose connection comes and goes
asking        one call, asked until there is an answer to be believed
names         the protocol's numbers and the SDK's names
acknowledged  signals that a server delivers again
polling       when which instance is asked for its signals
instances     what a client knows of its instances
verbs         what each message of the engine is in calls
client        the backend
serving       the server's side of a connection: requests on streams, and limits
listener      datagrams to connections
holding       whose instance it is
answering     what each call is answered
server        all of it, until it is drained
"""
