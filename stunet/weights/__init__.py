"""Weights that did not come from this network's own training run."""
