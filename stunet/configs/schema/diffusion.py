"""Keys of the noise and of what the network learns."""

import dataclasses

from stunet import extensions
from stunet.configs.schema.key import field

# Choices of `diffusion.schedule` that are steps with a beta each (`stunet.diffusion.betas`).
BETA_SCHEDULES = ("scaled_linear", "linear_betas")


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """The training objective: noise schedule, prediction and loss (`stunet.diffusion`)."""

    schedule: str = field(
        "cosine",
        "Noise schedule. 'cosine': the cosine schedule with bounded log-SNR (arXiv 2301.11093). "
        "'linear': the log-SNR falls linearly in time. 'iddpm': the cosine schedule of Improved "
        "DDPM, with which DeepFloyd IF was trained. 'flow': the straight path of flow matching, "
        "(1 - t) * x0 + t * eps (arXiv 2210.02747). Flow matching also sets `diffusion.prediction` "
        "and `diffusion.input_scale` to 'flow', and `diffusion.weighting` to 'uniform'. "
        "'scaled_linear': the 1000 steps of Stable Diffusion, whose betas rise linearly in their "
        "square root. 'linear_betas': the 1000 steps of DDPM, whose betas rise linearly; DDPM "
        "itself has betas from 0.0001 to 0.02. The last two go from `diffusion.beta_start` to "
        "`diffusion.beta_end`, and have no log-SNR bounds.",
        choices=("cosine", "linear", "iddpm", "flow", *BETA_SCHEDULES),
        own=extensions.NoiseSchedule,
    )
    shift: float = field(
        1.0,
        "Shift of the noise schedule: 2 log(shift) is added to the log-SNR at every noise time. "
        "Below 1: more noise. A schedule that suits 64 pixels suits 128 pixels with the shift "
        "64 / 128 = 0.5.",
        above=0,
    )
    log_snr_min: float = field(
        -15.0,
        "Logarithm of the signal-to-noise ratio at noise time 1, the noisy end, before "
        "`diffusion.shift`.",
    )
    log_snr_max: float = field(
        15.0,
        "Logarithm of the signal-to-noise ratio at noise time 0, the clean end, before "
        "`diffusion.shift`.",
    )
    beta_start: float = field(
        0.00085,
        "Beta of the first of 1000 steps, for the schedules 'scaled_linear' and 'linear_betas'. "
        "The default is Stable Diffusion's.",
        above=0,
        below=1,
    )
    beta_end: float = field(
        0.012,
        "Beta of the last of 1000 steps, for the schedules 'scaled_linear' and 'linear_betas'. "
        "The default is Stable Diffusion's.",
        above=0,
        below=1,
    )
    zero_terminal_snr: bool = field(
        False,
        "True: noise time 1 is pure noise, on the schedules 'scaled_linear' and 'linear_betas' "
        "(arXiv 2305.08891). Otherwise their last step keeps a little of the clip, such as its "
        "mean brightness. Needs another prediction than 'eps'.",
    )
    prediction: str = field(
        "v",
        "What the network predicts. 'eps': the noise. 'x0': the clean clip. 'v': the velocity "
        "alpha * eps - sigma * x0. 'flow': the velocity of flow matching, eps - x0. 'edm': the "
        "output of EDM's preconditioned network, for data of standard deviation 0.5 (arXiv "
        "2206.00364); stored latents have 1. EDM also sets `diffusion.input_scale` to 'edm' and "
        "`diffusion.weighting` to 'uniform'.",
        choices=("eps", "v", "x0", "flow", "edm"),
    )
    input_scale: str = field(
        "none",
        "Scale of the noisy clip that the network sees, which is alpha * x0 + sigma * eps times a "
        "number that depends on the noise level alone. 'none': alpha^2 + sigma^2 is 1. 'flow': "
        "alpha + sigma is 1, as in flow matching. 'edm': the noisy clip has variance 1 if the "
        "clean clips have the standard deviation 0.5, as in EDM (arXiv 2206.00364).",
        choices=("none", "flow", "edm"),
    )
    weighting: str = field(
        "min_snr",
        "Weight of each noise level in the loss. 'uniform': the mean squared error of the "
        "network's own output. 'min_snr': Min-SNR-gamma (arXiv 2303.09556). 'sigmoid': the sigmoid "
        "loss (arXiv 2410.19324), whose weight of the error in eps falls where the log-SNR is "
        "above `diffusion.sigmoid_log_snr`. It is multiplied by the slope of the noise schedule. "
        "So the expected loss does not depend on `diffusion.schedule`.",
        choices=("uniform", "min_snr", "sigmoid"),
        own=extensions.LossWeighting,
    )
    min_snr_gamma: float = field(
        5.0,
        "Gamma of the weighting 'min_snr'. The weight of the error in x0 grows with the "
        "signal-to-noise ratio until that ratio reaches gamma, and then stays the same.",
        above=0,
    )
    sigmoid_log_snr: float = field(
        0.0,
        "The log-SNR at which the weight of the error in eps, with the weighting 'sigmoid', is "
        "half its largest value. Lower: more weight on noisy clips.",
    )
    time_sampling: str = field(
        "uniform",
        "Density of the noise times in training. Each batch covers it evenly. 'uniform': all times "
        "alike. 'logit_normal': log(t / (1 - t)) is normal, which favours the middle. 'cosmap': "
        "on the schedule 'flow', the noise levels of the cosine schedule (arXiv 2403.03206).",
        choices=("uniform", "logit_normal", "cosmap"),
        own=extensions.TimeSampling,
    )
    time_mean: float = field(
        0.0,
        "Mean of log(t / (1 - t)), for the time sampling 'logit_normal'. Above 0: more noise. On "
        "the schedule 'flow' with `diffusion.shift` 1, EDM's noise levels have the mean -1.2 "
        "(arXiv 2206.00364).",
    )
    time_std: float = field(
        1.0,
        "Standard deviation of log(t / (1 - t)), for the time sampling 'logit_normal'. On the "
        "schedule 'flow', EDM's noise levels have 1.2 (arXiv 2206.00364).",
        above=0,
    )
    time_reference: int = field(
        0,
        "Number of pixels, frames * height * width, of the clips that `diffusion.time_sampling` "
        "suits. Clips with n pixels are trained at the times m * t / (1 + (m - 1) * t) with "
        "m = sqrt(n / `diffusion.time_reference`): larger clips get more noise (arXiv 2403.03206). "
        "`diffusion.shift` counts as well. "
        "With clips of several shapes, each shape has its own m. 0: times are not shifted.",
        least=0,
    )
    time_correction: bool = field(
        False,
        "True: each clip's loss is divided by the density of its noise time. The expected loss is "
        "then that of uniform times, and only its variance differs. With 'logit_normal', the few "
        "times near 0 and 1 then count a lot, which makes the loss noisy. False: times that are "
        "drawn more often also count more.",
    )
    caption_dropout: float = field(
        0.1,
        "Share of clips, from 0 to 1, that are trained without their caption. Classifier-free "
        "guidance needs a share above 0.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Distil:
    """Distillation: the network learns to sample in few steps (`stunet.diffusion.distillation`)."""

    steps: int = field(
        0,
        "Number of sampling steps that the network learns to do with. Above 0: it begins with the "
        "weights in `train.init_from`, and learns to do in this many steps of the sampler 'ddim' "
        "what these weights do in `distil.teacher_steps`. 0: no distillation.",
        least=0,
    )
    teacher_steps: int = field(
        64,
        "Number of sampling steps of the teacher, the network that is distilled: a multiple of "
        "`distil.steps`. More steps are closer to the teacher's exact solution and take longer to "
        "learn. Each update takes only one of them.",
        least=1,
    )
    guidance_scale: float = field(
        1.0,
        "Scale of classifier-free guidance that the network learns from the teacher, so that it "
        "samples without guidance. 1: the network learns both halves of guidance, with and without "
        "the caption, and `sample.guidance_scale` guides it.",
        above=0,
    )
    threshold: str = field(
        "static",
        "How estimates of the clean clip are kept between -1 and 1 in distillation. 'static': they "
        "are clipped. 'dynamic': they are clipped at the percentile 99.5 of each clip and divided "
        "by it. 'none': they stay as they are.",
        choices=("dynamic", "static", "none"),
    )
