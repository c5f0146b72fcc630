"""Workers: who claims runs of workflows, and runs them.

opening   ``open_worker`` and ``run_worker``: checks, stop signals, the drain
worker    one worker: what it claims, and when
run       one run: its body, its slot, what becomes of it
slots     how many runs work at once
"""
