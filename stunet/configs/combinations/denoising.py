"""How clips are noised, sampled, distilled and conditioned."""

import dataclasses
import math

from stunet import extensions
from stunet.configs.combinations.mistakes import Mistakes, divides
from stunet.configs.schema import BETA_SCHEDULES, Config


def noise_schedule(config: Config) -> Mistakes:
    least, most = config.diffusion.log_snr_min, config.diffusion.log_snr_max
    if least >= most:
        yield (
            f"diffusion.log_snr_min is {least:g} and diffusion.log_snr_max {most:g}; the minimum "
            "must be below the maximum"
        )
    first, last = config.diffusion.beta_start, config.diffusion.beta_end
    if first >= last:
        yield (
            f"diffusion.beta_start is {first:g} and diffusion.beta_end {last:g}; the first must be "
            "below the last"
        )


def zero_terminal_snr(config: Config) -> Mistakes:
    diffusion = config.diffusion
    if not diffusion.zero_terminal_snr:
        return
    if diffusion.schedule not in BETA_SCHEDULES:
        able = " and ".join(map(repr, BETA_SCHEDULES))
        yield (
            f"diffusion.zero_terminal_snr is true and diffusion.schedule {diffusion.schedule!r}; "
            f"only {able} can end in pure noise: choose one of them"
        )
    if diffusion.prediction == "eps":
        yield (
            "diffusion.zero_terminal_snr is true and diffusion.prediction 'eps'; the noise alone "
            "says nothing of the clip where nothing else is left: choose 'v'"
        )


def sampling(config: Config) -> Mistakes:
    sample = config.sample
    may_churn = sample.sampler in ("ddim", "heun") or extensions.names_object(sample.sampler)
    if sample.churn and not may_churn:
        yield (
            f"sample.churn is {sample.churn:g} and sample.sampler {sample.sampler!r}; fresh noise "
            "needs the sampler 'ddim' or 'heun': choose one of them, or set sample.churn to 0"
        )
    if sample.checkpoint not in ("newest", "best") and not sample.checkpoint.isdecimal():
        yield (
            f"sample.checkpoint is {sample.checkpoint!r}; choose 'newest', 'best' or a number of "
            "updates, such as '2000'"
        )
    if sample.autoguidance_scale != 1 and not sample.autoguidance_from:
        yield (
            f"sample.autoguidance_scale is {sample.autoguidance_scale:g} and "
            "sample.autoguidance_from empty; name a weaker version of the network, such as '1000' "
            "for the run's checkpoint after 1000 updates"
        )
    if sample.guidance_first > sample.guidance_last:
        yield (
            f"sample.guidance_first is {sample.guidance_first:g} and sample.guidance_last "
            f"{sample.guidance_last:g}; the first noise time must not be above the last"
        )


def distillation(config: Config) -> Mistakes:
    """Checks that a student has a teacher, and that it is sampled as it is trained."""
    distil, sample = config.distil, config.sample
    if not distil.steps:
        return
    if not config.train.init_from:
        yield (
            f"distil.steps is {distil.steps} and train.init_from empty; set it to the working "
            "directory of the run to distil, which is the teacher"
        )
    yield from divides(distil.teacher_steps, "distil.teacher_steps", distil.steps, "distil.steps")
    if sample.sampler != "ddim":
        yield (
            f"distil.steps is {distil.steps} and sample.sampler {sample.sampler!r}; a distilled "
            "network has learnt steps of 'ddim': set sample.sampler to it"
        )
    if distil.guidance_scale != 1 and sample.guidance_scale not in (0, 1):
        yield (
            f"distil.guidance_scale is {distil.guidance_scale:g} and sample.guidance_scale "
            f"{sample.guidance_scale:g}; the network has learnt the guided estimates: set "
            "sample.guidance_scale to 1"
        )


def conditioning(config: Config) -> Mistakes:
    """Checks that the network is given at most one input beside the noisy clip."""
    shares = sum(dataclasses.asdict(config.masks).values())
    if shares and not math.isclose(shares, 1, rel_tol=1e-6):
        yield f"the shares in masks sum to {shares:g}; they must sum to 1, or all be 0"
    given = {
        f"upscale.factor is {config.upscale.factor}": config.upscale.factor > 1,
        f"tsr.stride is {config.tsr.stride}": config.tsr.stride > 1,
        "masks are set": shares > 0,
    }
    if sum(given.values()) > 1:
        yield (
            f"{' and '.join(what for what, is_set in given.items() if is_set)}; a network can be "
            "given only one of a low-resolution clip, keyframes and parts of the clip: keep one "
            "of upscale.factor, tsr.stride and masks"
        )
