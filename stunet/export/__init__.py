"""Exports a run for use elsewhere: its averaged weights, and programs that sample with them."""
