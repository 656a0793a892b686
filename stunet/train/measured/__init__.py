"""What a run measures and shows while it trains: losses, times, operations, samples, trackers."""
