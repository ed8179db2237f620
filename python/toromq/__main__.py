"""``python -m toromq``: the same as the ``toromq`` command."""

import sys

from toromq.cli import main

if __name__ == "__main__":
    sys.exit(main())
