"""Writes reports: statistics over seeds, conclusions, drawings and tables on one HTML page.

A sweep compares variants, such as several learning rates. Each variant is an arm of the sweep, and
has one run for each seed.
"""
