"""Trainer for Space-Time U-Nets: video diffusion over the whole clip in a single pass."""

__version__ = "0.1.0"
