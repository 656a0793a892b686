"""Clips that are drawn, not filmed: endless, with true captions and known motion."""
