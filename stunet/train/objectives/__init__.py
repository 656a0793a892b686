"""What a network learns: to denoise clips or to reconstruct frames, and what it is given for it."""
