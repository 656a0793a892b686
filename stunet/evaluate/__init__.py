"""What clips are like, real or generated: how they move, and whether the motion holds together."""
