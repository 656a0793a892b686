"""Reads a benchmark's arguments, among which any key of the config may stand."""

import argparse


def parse_with_overrides(
    parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, list[str]]:
    """Returns the parsed arguments, and those that set keys: `--config.KEY=VALUE`.

    An argument of any other kind that the parser does not know ends the program.
    """
    arguments, overrides = parser.parse_known_args()
    if unknown := [flag for flag in overrides if not flag.startswith("--config.")]:
        parser.error(f"unknown argument {unknown[0]!r}")
    return arguments, overrides
