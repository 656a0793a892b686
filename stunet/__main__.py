"""`python -m stunet`: the command line, for a Python whose scripts are not on PATH."""

from stunet.cli import main_process

if __name__ == "__main__":
    main_process()
