"""Does a whole clip at once beat keyframes and interpolation, as Lumiere claims?

    stunet sweep --config single_pass_vs_cascade --workdir runs/claim --jobs 2
    stunet report runs/claim

All arms have the same data, the same network, the same training operations and the same sampling
operations:

    single_pass    all frames of a clip at once
    windowed       keyframes, then the frames between two of them, window by window
    global         keyframes, then all frames between all of them at once: the fairest opponent
    windowed_true, global_true   the same temporal super-resolution networks on true keyframes

A network sees no captions and learns one motion. `slow` has a period of four keyframe strides:
keyframes show it as it is. `fast` has a period of two strides: keyframes show the same whichever
way it goes. Speeds spread by 10%: one way at 0.9 of the speed looks like the other at 1.1.

Lumiere's claim has three reasons, and each is seen by a comparison:

    aliasing   global_true on fast motion: it sees all keyframes, and they are true
    windows    windowed against global, and windowed_true against global_true
    gap        between training and sampling: windowed against windowed_true, and global against
               global_true

A cascade spends half of its training on keyframes and half on its second network. The number of
sampling steps is such that a clip costs the same in each arm. A clip on true keyframes costs less,
so those arms are not ranked.

Hardware and time: 61 min 4 s on two CPU cores, for 24 trainings and 30 evaluations of 128 clips.

Expected result: on fast motion 85% ± 9% of the single pass's clips have a steady velocity, 17% ± 7%
of the windowed cascade's and 92% ± 13% of the global cascade's. On slow motion 82% ± 13%, 89% ± 10%
and 90% ± 14%. docs/how-to/cascade.md has the whole table.

`--config single_pass_vs_cascade:gpu` takes clips of 36 frames of 32x32 pixels, and adds objects
that cross, bounce and turn. It has not run yet.
"""

import dataclasses

from stunet import configs
from stunet.generate.cascade import count_windows
from stunet.sweep.members import Member, Step, replace
from stunet.train.flops import model_flops, sampling_flops
from stunet.train.parts import make_parts

SEEDS = (0, 1, 2)

# Names in the report.
LABELS = {
    "single_pass": "single pass",
    "windowed": "windowed cascade",
    "global": "global cascade",
    "windowed_true": "windowed cascade on true keyframes",
    "global_true": "global cascade on true keyframes",
    "keyframes": "keyframe network",
    "windowed_tsr": "windowed super-resolution",
    "global_tsr": "global super-resolution",
}


@dataclasses.dataclass(frozen=True)
class Size:
    """What is trained, on how much of what."""

    frames: int
    stride: int  # frames from one keyframe to the next
    shape: dict  # of clips and of the network
    training: dict  # of the single pass, whose operations each arm gets
    motions: dict  # by group: (data.motion, data.period)
    clips: int  # to judge each arm by


SIZES = {
    "cpu": Size(
        frames=16,
        stride=5,
        shape={
            "data.height": 4,
            "data.width": 16,
            "data.object_size": 6.0,
            "model.channels": 32,
            "model.channel_multipliers": (1, 2),
            "model.attention_levels": (False, True),
            "model.temporal_factors": (1, 2),
        },
        training={"train.steps": 2500, "train.batch_size": 8, "train.ema_decay": 0.99},
        motions={"slow": ("glide", 20.0), "fast": ("glide", 10.0)},
        clips=128,
    ),
    "gpu": Size(
        frames=36,
        stride=7,
        shape={
            "data.height": 32,
            "data.width": 32,
            "data.object_size": 8.0,
            "model.channels": 64,
            "model.channel_multipliers": (1, 2, 4),
            "model.attention_levels": (False, True, True),
            "model.temporal_factors": (1, 1, 2),
            "model.dtype": "bfloat16",
        },
        training={"train.steps": 20_000, "train.batch_size": 32, "train.ema_decay": 0.999},
        motions={
            "slow": ("glide", 28.0),
            "fast": ("glide", 14.0),
            "fast_crossing": ("cross", 14.0),
            "fast_bouncing": ("bounce", 14.0),
            "fast_turning": ("rotate", 14.0),
        },
        clips=256,
    ),
}


def get_sweep(size="cpu"):
    chosen, entries = SIZES[size], []
    for group, (motion, period) in chosen.motions.items():
        base = replace(_base(chosen), {"data.motion": motion, "data.period": period})
        title = f"{group.replace('_', ', ')} motion"
        networks = _networks(base, chosen)
        steps = _sampling_steps(networks)
        for seed in SEEDS:
            entries += [
                Member(
                    f"{group},{name},seed={seed}",
                    replace(config, {"seed": seed}),
                    title,
                    LABELS[name],
                )
                for name, config in networks.items()
            ]
            entries += _evaluations(group, title, seed, steps, chosen.clips)
    return entries


def _base(size: Size):
    """The single pass."""
    every = size.training["train.steps"] // 4
    return replace(
        configs.default(),
        size.shape
        | size.training
        | {
            "model.layers_per_level": 1,
            "model.patch_size": 2,
            "model.groups": 8,
            "model.head_channels": 32,
            "model.activation": "silu",
            # A caption tells which way objects move, which is what keyframes hide.
            "model.text_features": 0,
            "sample.guidance_scale": 1.0,
            "sample.steps": 50,
            "sample.threshold": "static",
            # As in the quickstart: what moves which way is decided by all frames, in much noise.
            "diffusion.shift": 0.3,
            "diffusion.weighting": "uniform",
            "diffusion.prediction": "x0",
            "data.source": "motions",
            "data.frames": size.frames,
            "data.channels": 1,
            "data.speed_spread": 0.1,
            "train.learning_rate": 2e-3,
            "train.final_learning_rate": 0.02,
            "checkpoint.every": every,
            "log.every": 25,
            "log.validate_every": every,
            "log.validate_clips": 64,
            "log.sample_every": 0,
        },
    )


def _networks(base, size: Size):
    """The single pass, and what cascades are made of, each with half of its operations."""
    tsr = {"tsr.stride": size.stride, "tsr.max_augmentation": 0.5}
    window = {"data.frames": size.stride + 1, "data.cut_from": size.frames}
    keyframes = (size.frames - 1) // size.stride + 1
    parts = {
        "keyframes": {"data.frames": keyframes, "data.stride": size.stride},
        "windowed_tsr": tsr | window,
        "global_tsr": tsr,
    }
    whole = configs.resolve(base)
    networks, budget = {"single_pass": whole}, _update_flops(whole) * whole.train.steps
    for name, values in parts.items():
        frames = values.get("data.frames", size.frames)
        # As many frames as half of the single pass's batch has.
        batch = round(whole.train.batch_size * size.frames / 2 / frames)
        part = configs.resolve(replace(whole, values | {"train.batch_size": batch}))
        steps = round(budget / 2 / _update_flops(part))
        every = {"checkpoint.every": steps // 4, "log.validate_every": steps // 4}
        networks[name] = configs.resolve(replace(part, {"train.steps": steps} | every))
    return networks


def _update_flops(config):
    parts = make_parts(config)
    return model_flops(parts.denoiser, parts.batch_size)


def _clip_flops(config, clips=1):
    parts = make_parts(config)
    return sampling_flops(parts.denoiser, parts.sampling, clips)


def _sampling_steps(networks):
    """By cascade: of both of its networks, so that a clip costs as much as in a single pass."""
    single, keyframes = networks["single_pass"], networks["keyframes"]
    found = {}
    for name in ("windowed", "global"):
        tsr = networks[f"{name}_tsr"]
        windows = count_windows(make_parts(tsr), keyframes.data.frames)
        cost = _clip_flops(keyframes) + _clip_flops(tsr, windows)
        found[name] = round(single.sample.steps * _clip_flops(single) / cost)
    return found


def _evaluations(group, title, seed, steps, clips):
    def at(name):
        return f"{group},{name},seed={seed}"

    def evaluate(name, out, after, *options):
        command = ("evaluate", "--workdir", f"{{sweep}}/{at(after[0])}", *options)
        command += ("--num", str(clips), "--out", f"{{sweep}}/{at(out)}")
        needed = tuple(map(at, after))
        makes, label = f"{at(out)}/evaluation.json", LABELS.get(name, "")
        return Step(at(name), command, needed, makes, title, label)

    found = [evaluate("single_pass_evaluation", "single_pass", ["single_pass"])]
    for name, count in steps.items():
        tsr, options = f"{name}_tsr", ("--steps", str(count))
        both = (*options, "--tsr", f"{{sweep}}/{at(tsr)}")
        found.append(evaluate(name, name, ["keyframes", tsr], *both))
        found.append(evaluate(f"{name}_true", f"{name}_true", [tsr], *options))
    return found
