"""How gradients become updates: methods, learning rates, trained parameters, averaged weights."""
