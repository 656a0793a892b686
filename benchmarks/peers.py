"""Times training steps of this package beside those of two PyTorch packages, on this machine.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install torch==2.13.0 numpy scipy einops einops-exts packaging \
        rotary-embedding-torch beartype tqdm pillow
    /tmp/peers/bin/pip install --no-deps lumiere-pytorch==0.0.24 video-diffusion-pytorch==0.7.0 \
        denoising-diffusion-pytorch==2.3.4
    python benchmarks/peers.py --python /tmp/peers/bin/python

The networks have the same channels, levels and frames, and take clips of three channels without
text:

* `stunet`: this package's STUNet, with 2 layers a level and attention at the coarsest level.
* `lumiere`: lumiere-pytorch's `MPLumiere` over `KarrasUnet`, with 2 blocks a stage.
* `unet3d`: video-diffusion-pytorch's `Unet3D`.

All parameters are trained, in float32. A step is the same work for all: it draws noise, computes a
squared error and its gradient, clips the gradient's norm, and updates AdamW's moments, the
parameters and their running average. PyTorch does the update in its fused kernels.

Each network runs in a process of its own, and the processes take turns, step by step, so that other
load on the machine meets all of them. A rate is the counted operations (three times those of a
forward pass for a step) divided by the median time. Beside the networks stands the rate of a matrix
product of 2048 x 2048, in PyTorch and in XLA.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable

NETWORKS = ("stunet", "lumiere", "unet3d")
# Channels of the finest level, then frames, rows and columns.
ROWS = ("32:16x32x32", "32:16x64x64", "64:16x32x32")
MULTIPLIERS = (1, 2, 4)


def stunet(channels: int, shape: tuple[int, ...], batch: int, compiled: bool) -> dict:
    """Makes this package's network and its step, as `stunet train` runs it: always compiled."""
    import jax
    import numpy as np
    from train_step import noise_batch

    from stunet import configs
    from stunet.commands.setup import set_up_jax
    from stunet.parallel import mesh as meshes
    from stunet.train.measured import flops
    from stunet.train.parts import make_parts
    from stunet.train.state import create_state
    from stunet.train.step import jit_train_step

    set_up_jax()
    config = configs.default()
    config.data.source = "moving_digits"
    config.data.frames, config.data.height, config.data.width = shape
    config.data.channels = 3
    config.model.channels = channels
    config.model.channel_multipliers = MULTIPLIERS
    config.model.layers_per_level = 2
    config.model.attention_levels = (False, False, True)
    config.model.temporal_factors = (1, 2, 2)
    config.model.groups = 8
    config.model.head_channels = 32
    config.model.activation = "silu"
    config.model.text_features = 0
    config.train.batch_size = batch
    parts = make_parts(configs.resolve(config))
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh, parts.layout.context_axis):
        state = create_state(parts.denoiser, parts.optimizer, parts.seed, mesh)
        clips = noise_batch(parts, mesh)
        update = jit_train_step(parts.objective, parts.optimizer, state, seed=0)
        network = parts.denoiser.network
        x, noise_time = np.zeros((batch, *shape, 3), np.float32), np.full(batch, 0.5, np.float32)
        predict = jax.jit(network.apply)
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        held = [state]

        def step():
            held[0], _ = jax.block_until_ready(update(held[0], clips))

        def forward():
            variables = {"params": held[0].params}
            jax.block_until_ready(predict(variables, x, noise_time))

        return dict(
            parameters=count,
            forward_flops=batch * flops.forward_flops(parts.denoiser),
            step=step,
            forward=forward,
        )


def _absent(*names: str) -> None:
    """Puts empty modules in the place of modules that the peers import and do not need here."""
    for name in names:
        module = types.ModuleType(name)

        def anything(attribute: str, name: str = name):
            if attribute.startswith("__"):  # `inspect` asks for these.
                raise AttributeError(attribute)
            return type(attribute, (), {"__init__": lambda self, *_, **__: None})

        module.__getattr__ = anything
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


def lumiere(channels: int, shape: tuple[int, ...], batch: int, compiled: bool) -> dict:
    """Makes lumiere-pytorch's network. Every stage has an inflation block on each way."""
    _absent("torchvision", "torchvision.transforms", "torchvision.utils", "ema_pytorch")
    _absent("accelerate", "x_transformers", "x_transformers.x_transformers")
    from denoising_diffusion_pytorch.karras_unet import KarrasUnet
    from lumiere_pytorch import MPLumiere

    image = KarrasUnet(
        image_size=shape[1],
        dim=channels,
        dim_max=channels * MULTIPLIERS[-1],
        channels=3,
        num_downsamples=len(MULTIPLIERS) - 1,
        num_blocks_per_stage=2,
        attn_res=(shape[1] // 4,),
        attn_dim_head=32,
        dropout=0.0,
    )
    network = MPLumiere(
        image,
        image_size=shape[1],
        unet_time_kwarg="time",
        conv_module_names=[f"{way}.{i}" for way in ("downs", "ups") for i in INFLATED[way]],
        attn_module_names=["downs.6", "downs.7", "mids.0", "ups.0", "ups.1", "ups.2"],
        downsample_module_names=["downs.2", "downs.5"],
        upsample_module_names=["ups.3", "ups.7"],
    )
    return _torch_step(network, image.parameters, shape, batch, compiled)


# Blocks of `KarrasUnet` with 2 down-samplings and 2 blocks a stage that get an inflation block.
INFLATED = {"downs": (0, 1, 3, 4), "ups": (4, 5, 6, 8, 9, 10)}


def unet3d(channels: int, shape: tuple[int, ...], batch: int, compiled: bool) -> dict:
    """Makes video-diffusion-pytorch's network."""
    _absent("torchvision", "torchvision.transforms", "torchvision.utils")
    from video_diffusion_pytorch import Unet3D

    network = Unet3D(dim=channels, dim_mults=MULTIPLIERS, channels=3)
    return _torch_step(network, lambda: (), shape, batch, compiled)


def _torch_step(
    network, more: Callable, shape: tuple[int, ...], batch: int, compiled: bool
) -> dict:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    parameters = list({id(p): p for p in (*network.parameters(), *more())}.values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    clean = torch.rand(batch, 3, *shape) * 2 - 1
    predict = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    average = [p.detach().clone() for p in parameters]

    def step() -> None:
        noise, noise_time = torch.randn_like(clean), torch.rand(batch)
        angle = noise_time.view(-1, 1, 1, 1, 1) * torch.pi / 2
        noisy = angle.cos() * clean + angle.sin() * noise
        loss = (predict(noisy, noise_time) - noise).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1e-3)

    @torch.no_grad()
    def forward() -> None:
        predict(clean, torch.full((batch,), 0.5))

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(clean, torch.full((batch,), 0.5))
    return dict(
        parameters=sum(p.numel() for p in parameters),
        forward_flops=counter.get_total_flops(),
        step=step,
        forward=forward,
    )


def torch_matmul() -> Callable[[], None]:
    """Makes a product of matrices of 2048 x 2048 in PyTorch."""
    import torch

    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    return lambda: a @ b


def xla_matmul() -> Callable[[], None]:
    """Makes a product of matrices of 2048 x 2048 in XLA."""
    import jax
    import jax.numpy as jnp

    a, product = jnp.ones((2048, 2048)), jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, a))


def work(order: dict) -> None:
    """Makes a network, and then runs and times what each line of standard input names."""
    name = order.pop("network")
    if name in MATMULS:
        made = dict(
            parameters=0,
            forward_flops=2 * 2048**3,
            forward=MATMULS[name](),
            step=lambda: None,
        )
    else:
        made = {"stunet": stunet, "lumiere": lumiere, "unet3d": unet3d}[name](**order)
    answer = {key: made[key] for key in ("parameters", "forward_flops")}
    print(json.dumps(answer), file=_ANSWERS, flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        made[line.strip()]()
        seconds = time.perf_counter() - begun
        with open("/proc/self/status") as file:
            (peak,) = (int(text.split()[1]) for text in file if text.startswith("VmHWM"))
        print(json.dumps({"seconds": seconds, "kilobytes": peak}), file=_ANSWERS, flush=True)


MATMULS = {"torch matmul": torch_matmul, "xla matmul": xla_matmul}


class Worker:
    """A process that runs one network when it is asked to."""

    def __init__(self, python: str, **order):
        environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
        self._process = subprocess.Popen(
            [python, __file__, "--work", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.facts = self._answer()
        self.seconds: dict[str, list[float]] = {"forward": [], "step": []}
        self.kilobytes = 0

    def run(self, what: str, *, measured: bool) -> None:
        """Runs a forward pass or a step."""
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.kilobytes = answer["kilobytes"]
        if measured:
            self.seconds[what].append(answer["seconds"])

    def _answer(self) -> dict:
        if line := self._process.stdout.readline():
            return json.loads(line)
        sys.exit("peers.py: a network's process ended; what it printed is above")

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(arguments: argparse.Namespace, row: str, batch: int, compiled: bool) -> None:
    """Prints a table row for each network."""
    channels, _, size = row.partition(":")
    shape = tuple(int(n) for n in size.split("x"))
    order = dict(channels=int(channels), shape=shape, batch=batch)
    workers = {}
    for name in MATMULS:
        python = sys.executable if name.startswith("xla") else arguments.python
        workers[name] = Worker(python, network=name)
    for name in arguments.networks:
        python = sys.executable if name == "stunet" else arguments.python
        workers[name] = Worker(python, network=name, **order, compiled=compiled)
    for what in ("forward", "step"):
        for turn in range(arguments.warmup + arguments.steps):
            for worker in workers.values():
                worker.run(what, measured=turn >= arguments.warmup)
    for name, worker in workers.items():
        flops = worker.facts["forward_flops"]
        forward, step = (statistics.median(worker.seconds[k]) for k in ("forward", "step"))
        cells = [f"{flops / forward / 1e9:.0f}"]
        if name not in MATMULS:
            cells = [
                f"{worker.facts['parameters'] / 1e6:.2f}",
                f"{flops / 1e9:.1f}",
                f"{forward:.3f}",
                *cells,
                f"{step:.3f}",
                f"{3 * flops / step / 1e9:.0f}",
                f"{worker.kilobytes / 2**20:.2f}",
            ]
        else:
            cells = ["", f"{flops / 1e9:.1f}", f"{forward:.3f}", *cells, "", "", ""]
        mode = "compiled" if compiled and name in ("lumiere", "unet3d") else ""
        print(
            "| " + " | ".join([row, str(batch), f"{name} {mode}".strip(), *cells]) + " |",
            flush=True,
        )
        worker.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--python", help="interpreter that has PyTorch and the peers")
    parser.add_argument(
        "--rows", nargs="+", default=ROWS, help="channels:FRAMESxROWSxCOLUMNS (%(default)s)"
    )
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=NETWORKS, help="networks (all)"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="batch sizes (1)")
    parser.add_argument("--steps", type=int, default=7, help="steps that are timed (7)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those (2)")
    parser.add_argument(
        "--compile", action="store_true", help="also time the peers with torch.compile"
    )
    arguments = parser.parse_args()
    if arguments.work:
        return work(json.loads(arguments.work))
    if not arguments.python:
        parser.error("--python is missing: the interpreter that has PyTorch and the peers")
    columns = ["row", "batch", "network", "M parameters", "GFLOP forward"]
    columns += ["forward s", "GFLOP/s", "step s", "GFLOP/s", "peak GiB"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for compiled in (False, True) if arguments.compile else (False,):
        for row in arguments.rows:
            for batch in arguments.batches:
                compare(arguments, row, batch, compiled)


if __name__ == "__main__":
    # What a package prints must not be taken for an answer.
    _ANSWERS = os.fdopen(os.dup(1), "w")
    if "--work" in sys.argv:
        os.dup2(2, 1)
    main()
