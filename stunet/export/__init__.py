"""What leaves the trainer: a run's averaged weights, and programs that sample with them."""
