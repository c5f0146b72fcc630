"""Workers: who claims runs of workflows, and runs them.

opening   ``open_worker`` and ``run_worker``: checks, stop signals, the drain
worker    one worker: what it claims, and when
run       one run: its body, its slot, what becomes of it
marks     which runs wait, as the store is told
settings  what a worker is given, and what it tells of itself
slots     how many runs work at once
"""
