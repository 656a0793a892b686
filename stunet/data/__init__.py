"""Reads clips from records or draws them, and makes the batches for training."""
