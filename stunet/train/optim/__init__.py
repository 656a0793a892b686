"""Turns gradients into updates: methods, learning rates, trained parameters, averaged weights."""
