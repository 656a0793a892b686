"""Exchanges weights with other projects' text-to-image U-Nets, and mixes weights for styles."""
