"""``runtara-trio demo``: a proof to be seen.

orders    a durable program that charges the orders of a file, each once
story     kills, pauses and resumes it, and counts what its ledger holds
"""
