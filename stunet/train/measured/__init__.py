"""Measures and shows a run while it trains: losses, times, operations, samples, trackers."""
