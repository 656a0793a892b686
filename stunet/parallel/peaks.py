"""Holds the peak rates of devices, by the names that JAX gives to the devices."""

# Dense bfloat16 operations (multiplications and additions) per second, as published:
# cloud.google.com/tpu/docs and NVIDIA's data sheets.
BFLOAT16 = {
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    # This is half of a chip's peak, 2307e12: JAX counts two devices in each chip.
    "TPU7x": 1153.5e12,
}
