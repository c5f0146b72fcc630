"""The client: a server as a backend.

backend        the Backend
verbs          what each message of the engine is in calls
life           of them: how an instance is registered, held, and ends
instances      what the client knows of its instances
polling        when which instance is asked for its signals
acknowledged   signals that a server delivers again
asking         one call, repeated until its answer can be trusted
session        a server whose connection comes and goes
connection     calls on the streams of one connection
"""
