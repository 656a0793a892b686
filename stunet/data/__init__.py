"""Reads clips from stored records or draws synthetic clips, and makes batches for training."""
