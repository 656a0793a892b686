"""`python -m stunet`: the command line, for a Python whose scripts are not on PATH."""

import sys

from stunet.cli import main

if __name__ == "__main__":
    sys.exit(main())
