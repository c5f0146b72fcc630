"""Clients: who starts runs of workflows, and waits for their results.

client       ``open_client`` and ``Client``
handle       ``InstanceHandle``: one instance
starts       what a start checks and makes
transaction  ``start_in``: a start in the user's own transaction
portal       a client in a thread of its own, for ``blocking`` and ``aio``
"""
