"""Does a whole clip at once beat keyframes and interpolation, as Lumiere claims?

    stunet sweep --config single_pass_vs_cascade --workdir runs/claim --jobs 2
    stunet report runs/claim

All arms have the same data, the same network, the same training operations and the same sampling
operations:

    single_pass    all frames of a clip at once
    windowed       keyframes, then the frames between two of them, window by window
    global         keyframes, then all frames between all of them at once: the fairest opponent
    windowed_true, global_true   the same temporal super-resolution networks on true keyframes

The file holds several questions; `--config single_pass_vs_cascade:NAME` asks another one:

    two_speeds  `slow` motion has a period of four keyframe strides: keyframes show it as it is.
                `fast` motion has a period of two strides: keyframes show the same whichever way it
                goes. Speeds spread by 10%: one way at 0.9 of the speed looks like the other at 1.1.
                No captions.
    speeds      One training on all speeds, from a quarter of the limit of aliasing to 1.75 times
                the limit. Without captions, and with captions that tell direction and speed.
    captions    Fast motion of `two_speeds`: does a caption that tells the direction repair windows?
    paths       Motions that never look like another one at keyframes, with captions.
    noise       Which level of noise on keyframes, in training and in sampling?
    real        Three short real videos, judged by flow and by what happens at borders of windows.
    gpu         Clips of 36 frames of 32x32 pixels, and objects that cross, bounce and turn.

Lumiere's claim has three reasons, and each is seen by a comparison:

    aliasing   global_true on fast motion: it sees all keyframes, and they are true
    windows    windowed against global, and windowed_true against global_true
    gap        between training and sampling: windowed against windowed_true, and global against
               global_true

A cascade spends half of its training on keyframes and half on its second network. The number of
sampling steps is such that a clip costs the same in each arm. A clip on true keyframes costs less,
so those arms are not ranked.

Hardware and time: two_speeds took 61 min 4 s on two CPU cores, for 24 trainings and 30 evaluations
of 128 clips. The five seeds of captions took about two and a half hours, and five seeds of speeds
without captions 4 hours, on busy cores. The other questions have not been run to their end yet.

Expected result of two_speeds: on fast motion 85% ± 9% of the single pass's clips have a steady
velocity, 17% ± 7% of the windowed cascade's and 92% ± 13% of the global cascade's. On slow motion
82% ± 13%, 89% ± 10% and 90% ± 14%. docs/how-to/cascade.md has the whole table.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from stunet import configs
from stunet.errors import choose
from stunet.generate.cascade import count_windows
from stunet.sweep.curves import Curves, Expected
from stunet.sweep.members import Member, Step, Sweep, replace
from stunet.train.measured.flops import model_flops, sampling_flops
from stunet.train.parts import make_parts

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
class Question:
    """Says what is trained, on how much of what, and how the arms are judged.

    Attributes:
        frames: frames of a clip.
        stride: frames from one keyframe to the next.
        shape: values of config keys that clips and networks of all arms share.
        training: the same for the training of the single pass, whose operations each arm gets.
        groups: by name: title in the report, and values of the group's own keys. Each group has
            all arms.
        seeds: number of seeds.
        clips: clips that judge an arm, for each seed.
        metrics: argument of `stunet evaluate --metrics`.
        levels: levels of noise on keyframes: the largest in training, and the one at which
            generated keyframes are filled in. If there are several, arms differ in them, and true
            keyframes get the same noise as generated ones. Otherwise they get none.
        curves, predictions: see `Sweep`.
    """

    frames: int
    stride: int
    shape: dict[str, Any]
    training: dict[str, Any]
    groups: dict[str, tuple[str, dict[str, Any]]]
    seeds: int = 5
    clips: int = 128
    metrics: str = "coherence"
    levels: tuple[tuple[float, float], ...] = ((0.5, 0.27),)
    curves: tuple[Curves, ...] = ()
    predictions: tuple[str, ...] = ()


# A network without captions on frames of 4x16 pixels.
_STRIP = {
    "data.height": 4,
    "data.width": 16,
    "data.object_size": 6.0,
    "data.speed_spread": 0.1,
    "model.channels": 32,
    "model.channel_multipliers": (1, 2),
    "model.attention_levels": (False, True),
    "model.temporal_factors": (1, 2),
}

_SHORT = {"train.steps": 2500, "train.batch_size": 8, "train.ema_decay": 0.99}

# Bins of the turn from one keyframe to the next, in half turns: 1 is the limit of aliasing. They
# cover the data's range. A turn of x looks like one of 2 - x the other way, which is in the range
# too.
_BINS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.3, 1.75)

# The same network on frames of 16x16 pixels. Keyframes are 7 frames apart, so that a period of 14
# frames is the limit of aliasing. An arm turns once in 8 to 56 frames.
_SQUARE = _STRIP | {
    "data.height": 16,
    "data.motion": "rotate",
    "data.period": 14 / math.sqrt(_BINS[0] * _BINS[-1]),
    "data.speed_spread": 0.0,
    "data.speed_octaves": math.log2(_BINS[-1] / _BINS[0]) / 2,
    "model.patch_size": 4,
    "sample.sampler": "ancestral",
}

# What curves compare in each bin of speed.
_PAIRS = (
    ("single pass", "windowed cascade"),
    ("single pass", "global cascade"),
    ("global cascade", "windowed cascade"),
    ("global cascade on true keyframes", "windowed cascade on true keyframes"),
)


# Titles of groups.
_SILENT, _TOLD = "without captions", "captions tell direction and speed"

# Every network of every arm sees captions.
_CAPTIONS = {
    "model.text_features": 64,
    "model.text_groups": 8,
    "model.text_pooling_heads": 4,
    "text.max_length": 16,
    # Guidance is off, so that nothing is trained without a caption.
    "diffusion.caption_dropout": 0.0,
}


def ideal_shares(bins: tuple[float, ...], windows: int) -> dict[str, tuple[float, ...]]:
    """Returns what perfect networks without captions would make of true keyframes.

    Two keyframes show a turn x, in half turns per stride, up to whole turns: x - 2, x and x + 2
    look the same. All those count whose size is in the data's range, and a size s has the density
    1 / s, because the logarithm of the speed is uniform. A perfect network chooses among them with
    these weights. Windows choose by themselves, and a clip is steady if all choose the same.

    Args:
        bins: edges of bins of x. The first and the last are the data's range.
        windows: windows of a clip.

    Returns:
        The shares of clips in each bin: "steady" by windows, "steady and right" by windows, and
        "right" by a network that fills in all frames at once, whose clips are all steady.
    """
    spread = [np.geomspace(low, high, 2000) for low, high in itertools.pairwise(bins)]
    turns = np.concatenate(spread)[:, None]
    sizes = np.abs(turns + 2 * np.arange(-2, 3))
    weights = np.where((sizes >= bins[0]) & (sizes <= bins[-1]), 1 / sizes, 0)
    weights /= weights.sum(1, keepdims=True)
    true = weights[:, 2]
    shares = {
        "steady": (weights**windows).sum(1),
        "steady and right": true**windows,
        "right": true,
    }
    return {
        name: tuple(share.reshape(len(bins) - 1, -1).mean(1).tolist())
        for name, share in shares.items()
    }


def _speeds() -> Curves:
    ideal = ideal_shares(_BINS, windows=3)
    one = (1.0,) * (len(_BINS) - 1)
    return Curves(
        title="Steady motion over speed",
        metrics=("coherent", "faithful", "phase_drift"),
        over=("true_speed", "step_length"),
        bins=_BINS,
        label="turn from one keyframe to the next; 1 is half a turn",
        # The arm's end moves on a circle of 2 pi 7 = 44 pixels.
        scale=2 * 7 / (2 * math.pi * 7),
        marks=((1.0, "limit of aliasing"),),
        pairs=_PAIRS,
        # A caption that names the direction leaves a single turn that fits the keyframes.
        expected=tuple(
            Expected(LABELS[arm], metric, shares, group)
            for group, arm, metric, shares in (
                (_SILENT, "windowed_true", "coherent", ideal["steady"]),
                (_SILENT, "windowed_true", "faithful", ideal["steady and right"]),
                (_SILENT, "global_true", "coherent", one),
                (_SILENT, "global_true", "faithful", ideal["right"]),
                (_TOLD, "windowed_true", "coherent", one),
                (_TOLD, "windowed_true", "faithful", one),
                (_TOLD, "global_true", "coherent", one),
                (_TOLD, "global_true", "faithful", one),
            )
        ),
    )


QUESTIONS = {
    "two_speeds": Question(
        frames=16,
        stride=5,
        shape=_STRIP | {"data.motion": "glide"},
        training=_SHORT,
        groups={
            "slow": ("slow motion", {"data.period": 20.0}),
            "fast": ("fast motion", {"data.period": 10.0}),
        },
        seeds=3,
    ),
    "speeds": Question(
        frames=22,
        stride=7,
        shape=_SQUARE,
        training={"train.steps": 10_000, "train.batch_size": 8, "train.ema_decay": 0.998},
        groups={"silent": (_SILENT, {}), "told": (_TOLD, _CAPTIONS | {"data.caption_speed": True})},
        clips=192,
        curves=(_speeds(),),
        predictions=(
            "Without captions, at least 70% of the single pass's clips are steady at all speeds.",
            "On true keyframes without captions, as few of the windowed cascade's clips are steady "
            "as the dotted line says: 62% at the lowest speeds, 27% at the limit of aliasing.",
            "The windowed cascade on keyframes of its own is no steadier than on true ones.",
            "The global cascade is as steady as the single pass, or steadier, at all speeds; on "
            "true keyframes without captions, it turns the right way as often as the dotted line "
            "says: 85% at the lowest speeds, 24% at the highest.",
            "With captions, at least 90% of the clips of both cascades on true keyframes are "
            "steady and right at all speeds.",
        ),
    ),
    # Captions that name the direction of fast motion, which keyframes do not show.
    "captions": Question(
        frames=16,
        stride=5,
        shape=_STRIP | {"data.motion": "glide", "data.period": 10.0, "sample.sampler": "ancestral"},
        training=_SHORT,
        groups={"silent": (_SILENT, {}), "told": ("captions tell the direction", _CAPTIONS)},
        predictions=(
            "On true keyframes without captions, about a quarter of the windowed cascade's clips "
            "are steady, and the global cascade turns the right way in about half of them.",
            "With captions, at least 90% of the clips of both cascades on true keyframes are "
            "steady and go the right way.",
            "With captions, the windowed cascade on keyframes of its own is steady as often as "
            "the single pass, within 10 points.",
        ),
    ),
    # Motions that look like no other motion at keyframes, with captions for every network.
    "paths": Question(
        frames=16,
        stride=5,
        shape=_STRIP | _CAPTIONS | {"data.period": 10.0, "sample.sampler": "ancestral"},
        training=_SHORT,
        groups={
            "fall": ("bouncing on the floor", {"data.motion": "fall"}),
            "pendulum": ("a damped pendulum", {"data.motion": "pendulum"}),
            "wander": ("a random smooth path", {"data.motion": "wander"}),
            "cross": ("two objects that cross", {"data.motion": "cross"}),
            "turn": ("a turn at a random frame", {"data.motion": "turn"}),
        },
        predictions=(
            "On true keyframes, the windowed cascade is coherent less often than the global one on "
            "each motion, because two keyframes do not show how fast an object passes them.",
            "On a fall, a pendulum and a random path, the global cascade on true keyframes is "
            "coherent and right in at least 80% of clips.",
            "Of a turn at a random frame, no keyframes and no caption tell the frame: the global "
            "cascade on true keyframes is coherent as often as the single pass, and right less "
            "often than on any other motion.",
            "Two objects that cross exchange their looks or paths most often in the windowed "
            "cascade.",
        ),
    ),
    # Keyframes of slow motion are made well.
    "noise": Question(
        frames=16,
        stride=5,
        shape=_STRIP | {"data.motion": "glide", "data.period": 20.0, "sample.sampler": "ancestral"},
        training=_SHORT,
        groups={"slow": ("slow motion", {})},
        levels=((0.0, 0.0), (0.1, 0.1), (0.27, 0.27), (0.5, 0.5)),
        predictions=(
            "Without noise, generated keyframes cost both cascades more than 10 points of steady "
            "clips against true ones.",
            "With noise of level 0.27, they cost less than 5 points.",
            "On generated keyframes, 0.1 and 0.27 cannot be told apart by five seeds, and 0.5 is "
            "behind both, because it hides where the object is.",
        ),
    ),
    # Three short videos, prepared as experiments/real_clips.py says.
    "real": Question(
        frames=16,
        stride=5,
        shape={
            "data.source": "clips",
            "data.path": "runs/clips",
            "data.height": 32,
            "data.width": 32,
            "data.channels": 3,
            "data.fps": 12.0,
            "model.channels": 32,
            "model.channel_multipliers": (1, 2, 4),
            "model.attention_levels": (False, True, True),
            "model.temporal_factors": (1, 1, 2),
            "diffusion.shift": 1.0,
            # Three held-out clips are fewer than the keyframe network's batch of four.
            "log.validate_every": 0,
        },
        training={"train.steps": 1000, "train.batch_size": 2, "train.ema_decay": 0.99},
        groups={"real": ("real videos", {})},
        clips=16,
        metrics="pixels,flow",
        predictions=(
            "Three videos are learnt by heart: no arm leads in pixels or in flow by a difference "
            "that five seeds can tell.",
            "At borders of windows, the flow of the windowed cascade changes more than elsewhere, "
            "and that of the other arms does not.",
        ),
    ),
    "gpu": Question(
        frames=36,
        stride=7,
        shape={
            "data.height": 32,
            "data.width": 32,
            "data.object_size": 8.0,
            "data.speed_spread": 0.1,
            "model.channels": 64,
            "model.channel_multipliers": (1, 2, 4),
            "model.attention_levels": (False, True, True),
            "model.temporal_factors": (1, 1, 2),
            "model.dtype": "bfloat16",
        },
        training={"train.steps": 20_000, "train.batch_size": 32, "train.ema_decay": 0.999},
        groups={
            "slow": ("slow motion", {"data.motion": "glide", "data.period": 28.0}),
            "fast": ("fast motion", {"data.motion": "glide", "data.period": 14.0}),
            "crossing": ("fast objects that cross", {"data.motion": "cross", "data.period": 14.0}),
            "bouncing": (
                "fast objects that bounce",
                {"data.motion": "bounce", "data.period": 14.0},
            ),
            "turning": ("an arm that turns fast", {"data.motion": "rotate", "data.period": 14.0}),
        },
        seeds=3,
        clips=256,
    ),
}


def get_sweep(name: str = "two_speeds") -> Sweep:
    question = choose(QUESTIONS, name, "question")
    networks = {
        group: _networks(replace(_base(question), values), question)
        for group, (_, values) in question.groups.items()
    }
    entries = []
    # Seed by seed, so that a sweep that is stopped has compared all groups.
    for seed in range(question.seeds):
        for group, (title, _) in question.groups.items():
            entries += _arms(group, title, seed, networks[group], question)
    return Sweep(entries, question.curves, question.predictions)


def _base(question: Question):
    """The single pass."""
    every = question.training["train.steps"] // 4
    return replace(
        configs.default(),
        {
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
            "data.frames": question.frames,
            "data.channels": 1,
            "train.learning_rate": 2e-3,
            "train.final_learning_rate": 0.02,
            "checkpoint.every": every,
            "log.every": 25,
            "log.validate_every": every,
            "log.validate_clips": 64,
            "log.sample_every": 0,
        }
        | question.shape
        | question.training,
    )


def _networks(base, question: Question):
    """Returns the config of the single pass, and of what cascades are made of.

    Each network of a cascade trains with half of the single pass's operations.
    """
    keyframes = (question.frames - 1) // question.stride + 1
    window = {"data.frames": question.stride + 1, "data.cut_from": question.frames}
    parts = {"keyframes": {"data.frames": keyframes, "data.stride": question.stride}}
    for most, level in question.levels:
        tsr = {"tsr.stride": question.stride, "tsr.max_augmentation": most}
        parts[f"windowed_tsr{_suffix(level, question)}"] = tsr | window
        parts[f"global_tsr{_suffix(level, question)}"] = tsr
    whole = configs.resolve(base)
    networks, budget = {"single_pass": whole}, _update_flops(whole) * whole.train.steps
    for name, values in parts.items():
        frames = values.get("data.frames", question.frames)
        # As many frames as half of the single pass's batch has.
        batch = round(whole.train.batch_size * question.frames / 2 / frames)
        part = configs.resolve(replace(whole, values | {"train.batch_size": batch}))
        steps = round(budget / 2 / _update_flops(part))
        every = {"checkpoint.every": steps // 4}
        if whole.log.validate_every:
            every["log.validate_every"] = steps // 4
        networks[name] = configs.resolve(replace(part, {"train.steps": steps} | every))
    return networks


def _suffix(level, question):
    """Returns the end of the names of arms that differ in the level of noise on keyframes."""
    return f",level={level:g}" if len(question.levels) > 1 else ""


def _label(name):
    kind, _, level = name.partition(",level=")
    return LABELS[kind] + (f", noise {level}" if level else "")


def _update_flops(config):
    parts = make_parts(config)
    return model_flops(parts.denoiser, parts.batch_size)


def _clip_flops(config, clips=1):
    parts = make_parts(config)
    return sampling_flops(parts.denoiser, parts.sampling, clips)


def _sampling_steps(networks, tsr):
    """Returns the sampling steps of a cascade, with which a clip costs as much as a single pass."""
    single, keyframes = networks["single_pass"], networks["keyframes"]
    windows = count_windows(make_parts(networks[tsr]), keyframes.data.frames)
    cost = _clip_flops(keyframes) + _clip_flops(networks[tsr], windows)
    return round(single.sample.steps * _clip_flops(single) / cost)


def _arms(group, title, seed, networks, question: Question):
    """Returns the trainings and evaluations of one seed."""

    def at(name):
        return f"{group},{name},seed={seed}"

    def evaluate(name, label, out, after, *options):
        command = ("evaluate", "--workdir", f"{{sweep}}/{at(after[0])}", *options)
        command += ("--metrics", question.metrics, "--num", str(question.clips))
        command += ("--out", f"{{sweep}}/{at(out)}")
        needed = tuple(map(at, after))
        return Step(at(name), command, needed, f"{at(out)}/evaluation.json", title, label)

    found = [
        Member(at(name), replace(config, {"seed": seed}), title, _label(name))
        for name, config in networks.items()
    ]
    # This evaluation belongs to the run's own arm.
    found.append(evaluate("single_pass_evaluation", "", "single_pass", ["single_pass"]))
    for (_, level), kind in itertools.product(question.levels, ("windowed", "global")):
        suffix = _suffix(level, question)
        tsr = f"{kind}_tsr{suffix}"
        steps = ("--steps", str(_sampling_steps(networks, tsr)))
        noise = ("--augmentation", f"{level:g}")
        both = (*steps, *noise, "--tsr", f"{{sweep}}/{at(tsr)}")
        name, true = f"{kind}{suffix}", f"{kind}_true{suffix}"
        found.append(evaluate(name, _label(name), name, ["keyframes", tsr], *both))
        given = (*steps, *(noise if suffix else ()))
        found.append(evaluate(true, _label(true), true, [tsr], *given))
    return found
