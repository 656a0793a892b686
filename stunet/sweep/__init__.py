"""Trains several configs that answer one question, as processes of this machine."""
