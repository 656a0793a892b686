"""Networks as Flax Linen modules: the Space-Time U-Net, text encoders, autoencoders and I3D.

Clips are `[b, t, h, w, c]`: batch, frames, rows, columns, channels. Text is token states
`[b, l, d]` with a mask `[b, l]` that is True on tokens. Modules are pure: `init` makes parameters
and `apply` computes. Parameters carry names of logical axes, which `stunet.parallel.mesh` maps to
devices.
"""
