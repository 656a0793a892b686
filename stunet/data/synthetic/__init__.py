"""Draws clips without end, with true captions and known motion."""
