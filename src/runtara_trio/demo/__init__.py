"""``runtara-trio demo``: a proof to be seen.

file      a file of orders
ledger    what was done to the world, a line an effect
orders    the workflow of one order
orders_2  its next version
story     workers of both, killed and drained; and what the ledger holds in the end
"""
