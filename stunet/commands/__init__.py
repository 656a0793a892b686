"""Defines the commands of `stunet`. Each command has a file for its arguments and what it runs."""
