"""Draws any number of synthetic clips, with true captions and known motion."""
