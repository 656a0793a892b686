"""Trains a network, and continues a run that was stopped.

`parts.py` turns a config into parts: network, objective, optimiser, data, mesh. `step.py` is one
update, a pure function of state and batch. `loop.py` runs the updates, with metrics, validation,
samples and checkpoints between them. Checkpoint N holds exactly N updates and the position in the
data.

`objectives/` has what networks learn, `optim/` how gradients become updates, `saved/` what stays on
disk, and `measured/` what a run measures and shows.
"""
