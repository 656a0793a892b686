"""Keys of sampling."""

import dataclasses

from stunet import extensions
from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Sample:
    """How clips are sampled. Options of the command line replace these settings."""

    sampler: str = field(
        "ddim",
        "Sampler. 'ddim': deterministic DDIM. 'ancestral': DDPM's sampling, which adds noise in "
        "each step. 'dpmpp_2m': DPM-Solver++ of second order, multistep. 'heun': Heun's method for "
        "the straight path of flow matching, of second order. 'unipc': UniPC (arXiv 2302.04867), "
        "which predicts and corrects without further calls of the network, of third order.",
        choices=("ddim", "ancestral", "dpmpp_2m", "heun", "unipc"),
        own=extensions.Sampler,
    )
    steps: int = field(
        0,
        "Number of sampling steps. In each step the network is called once; 'heun' needs two steps "
        "for each noise level. 0: `distil.steps` for a distilled network, 50 for others.",
        least=0,
    )
    guidance_scale: float = field(
        2.0,
        "Scale of classifier-free guidance. 1: no guidance. 0: the caption is ignored. Above 1: "
        "clips follow the caption more closely. With any scale except 0 and 1, each step computes "
        "each clip twice: with its caption and without.",
        least=0,
    )
    guidance_first: float = field(
        0.0,
        "First noise time, from 0 (clean) to 1 (noise), at which classifier-free guidance is used. "
        "At noise times outside `sample.guidance_first` to `sample.guidance_last`, each clip is "
        "computed once, with its caption (arXiv 2404.07724). Which noise levels these times have "
        "depends on `diffusion.schedule` and `diffusion.shift`.",
        least=0,
        most=1,
    )
    guidance_last: float = field(
        1.0,
        "Last noise time, from 0 (clean) to 1 (noise), at which classifier-free guidance is used.",
        least=0,
        most=1,
    )
    guidance_rescale: float = field(
        0.0,
        "Share, from 0 to 1, of the contrast from guidance that is taken back. 1: each guided "
        "estimate of the clean clip gets the standard deviation that it has without guidance "
        "(arXiv 2305.08891).",
        least=0,
        most=1,
    )
    autoguidance_scale: float = field(
        1.0,
        "Scale of autoguidance (arXiv 2406.02507): each estimate of the clean clip is moved away "
        "from that of a weaker version of the network, which makes the same errors, only larger "
        "ones. 1: none. 2: by the difference of the two estimates. Classifier-free guidance is "
        "added to it. With any scale except 1, each step also computes each clip with the weaker "
        "weights.",
        least=1,
    )
    autoguidance_from: str = field(
        "",
        "Weaker version of the network, for autoguidance: the number of updates of an earlier "
        "checkpoint of the same run, such as '1000', which `checkpoint.keep_every` keeps; or the "
        "working directory of another run of the same network; or a .safetensors file of "
        "`stunet ema` or `stunet export`.",
        path=str,
    )
    churn: float = field(
        0.0,
        "Amount of fresh noise in each step: S_churn of EDM (arXiv 2206.00364, algorithm 2). Each "
        "step removes more noise than it has to, and then adds fresh noise; EDM adds it first, and "
        "in a range of noise levels. 0: none, so that samples "
        "depend on the first noise alone. Above 0 needs the sampler 'ddim' or 'heun'.",
        least=0,
    )
    threshold: str = field(
        "dynamic",
        "How estimates of the clean clip are kept between -1 and 1 in each step. 'static': they "
        "are clipped. 'dynamic': they are clipped at a percentile of each clip and divided by it "
        "(Imagen, arXiv 2205.11487). 'none': they stay as they are, as latents must.",
        choices=("dynamic", "static", "none"),
    )
    threshold_percentile: float = field(
        99.5,
        "Percentile of the absolute pixel values at which the threshold 'dynamic' clips.",
        above=0,
        most=100,
    )
    num: int = field(4, "Number of clips in each set of sample clips while training.", least=1)
    checkpoint: str = field(
        "newest",
        "Checkpoint of the run that sampling, evaluation and export read: 'newest'; 'best', by "
        "`checkpoint.keep_best`; or a number of updates, such as '2000'.",
    )
