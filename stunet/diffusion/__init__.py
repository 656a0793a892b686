"""The maths of diffusion: noise schedules, predictions, losses, samplers and guidance.

Conventions of this package:

- `t`: time in [0, 1]; 0 is the clean clip, 1 is noise.
- `log_snr`: log(alpha^2 / sigma^2), the log signal-to-noise ratio that a schedule gives for t.
- `x_t`: alpha x0 + sigma noise, with alpha^2 + sigma^2 = 1 (variance preserving). A clip noised in
  another way, such as flow matching's, is such an x_t times a number that depends on the log-SNR
  alone. `schedules.input_scale` gives this number, and only the network sees the product.
- `x0`: clean clips in -1..1, `[b, t, h, w, c]`; most functions take any shape.

All arithmetic is float32, whatever the dtype of the network.
"""
