"""Reads and writes weights that come from elsewhere: open text-to-image U-Nets, and styles."""
