"""``python -m foundry_fastlog``: the command line, where the script is not on PATH."""

from __future__ import annotations

import sys

from foundry_fastlog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
