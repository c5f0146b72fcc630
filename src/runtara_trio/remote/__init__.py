"""A server as a backend: what each message of the engine is in calls, whatever carries them.

backend        the Backend
verbs          what each message of the engine is in calls
life           of them: how an instance is registered, held, and ends
instances      what the client knows of its instances
polling        when which instance is asked for its signals
acknowledged   signals that a server delivers again
asking         one call, repeated until its answer can be trusted
names          the protocol's numbers and the SDK's names
"""
