"""Defines what networks learn, to denoise clips or to reconstruct frames, and their inputs."""
