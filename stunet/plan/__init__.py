"""Plans runs: predicts their memory and time, on chips that this machine need not have."""
