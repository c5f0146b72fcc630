"""``python -m runtara_trio``: the command line."""

from .cli.main import main

main(prog_name="runtara-trio")
