"""Defines the commands of `stunet`. Each command and its arguments have their own file."""
