"""Plans runs: the memory and time that they need, on chips that this machine need not have."""
