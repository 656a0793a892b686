"""Does it pay to freeze a text-to-image network, as Lumiere does?

    python experiments/fetch_handwriting.py runs/handwriting.npz
    stunet sweep --config inflation_recipe --workdir runs/recipe --jobs 2
    stunet report runs/recipe

Twice over: on digits that leave trails, so that a picture shows what words of motion mean, and on
digits that do not. All arms end with the same network, which makes clips of digits in colour
(experiments/lumiere_mini.py), and all spend the same operations on training:

    frozen      the text-to-image network is trained on pictures, then frozen; temporal layers are
                trained on clips
    unfrozen    the same, but all layers are trained on clips, in fewer updates
    scratch     all layers are trained on clips from the beginning, with the operations that the
                other arms spend on pictures in addition

`frozen` and `unfrozen` of one seed begin with the same text-to-image network, so its operations
count for each of them. Clips are judged by what they show of their captions.

Hardware and time: not measured. Counted operations ask for about ten hours of one core.

Expected result: unknown. The sweep has not run to its end yet.

`--config inflation_recipe:smoke` runs through everything in minutes, and shows nothing.
"""

import dataclasses

from stunet import configs
from stunet.sweep.members import Member, Step, Sweep, replace
from stunet.train.measured.flops import model_flops
from stunet.train.parts import make_parts

PREDICTIONS = (
    "The digit and the colours: both arms that begin with pictures show them more often than the "
    "network from scratch, because a picture costs a tenth of a clip.",
    "The direction and the speed, without trails: the frozen network shows them least often, near "
    "chance. The layers that read captions are frozen, and pictures never taught them words of "
    "motion.",
    "The direction and the speed, with trails: the frozen network shows them about as often as the "
    "unfrozen one.",
    "Everything at once: the frozen network leads with trails, the unfrozen one without.",
)
# Group in the report -> opacity of the trails.
WORLDS = {"pictures that show motion": 0.6, "pictures that show no motion": 0.0}
LABELS = {
    "frozen": "frozen text-to-image network",
    "unfrozen": "unfrozen text-to-image network",
    "scratch": "network from scratch",
    "pictures": "text-to-image network",
}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is trained and judged.

    Attributes:
        seeds: seeds of each arm.
        picture_updates: updates of the text-to-image network.
        clip_updates: updates of the arm `frozen` on clips, which sets the operations of all arms.
        clips: clips that each arm is judged by.
    """

    seeds: tuple[int, ...]
    picture_updates: int
    clip_updates: int
    clips: int


SIZES = {
    "cpu": Size((0, 1, 2, 3, 4), 8000, 2000, 240),
    "smoke": Size((0, 1), 4, 4, 4),
}


def get_sweep(size="cpu"):
    chosen, entries = SIZES[size], []
    for seed in chosen.seeds:
        for world, trail in WORLDS.items():
            entries += _entries(_arms(chosen, size, trail), world, trail, seed, chosen.clips)
    return Sweep(entries, predictions=PREDICTIONS)


def _entries(arms, world, trail, seed, clips):
    """Returns the members of one seed on one kind of data, and the steps that judge them."""
    entries = []

    def called(name):
        return f"{name},trail={trail:g},seed={seed}"

    for name, (config, start) in arms.items():
        values, after = {"seed": seed}, ()
        if start:
            after = (called(start),)
            values["train.init_from"] = f"{{sweep}}/{after[0]}"
        # Pictures have another loss and no motion: the report compares them with nothing else.
        group = f"{world}: pictures" if name == "pictures" else world
        config = replace(config, values)
        entries.append(Member(called(name), config, group, LABELS[name], after))
        if name != "pictures":
            entries.append(_evaluation(called(name), group, clips))
    return entries


def _arms(size, name, trail):
    """Returns the config of each member without its seed, and the member that it begins with."""
    pictures, frozen = (
        configs.replace(
            configs.resolve(configs.start_from(f"lumiere_mini:{stage},{name}")),
            {"data.trail": trail},
        )
        for stage in ("text_to_image", "base")
    )
    whole = configs.replace(frozen, {"freeze": "none", "train.init_from": ""})
    pictures = _updates(pictures, size.picture_updates)
    frozen = _updates(frozen, size.clip_updates)
    of_pictures, of_clips = _operations(pictures), _operations(frozen)
    each = _operations(_updates(whole, 1))
    return {
        "pictures": (pictures, ""),
        "frozen": (frozen, "pictures"),
        "unfrozen": (_updates(whole, round(of_clips / each)), "pictures"),
        "scratch": (_updates(whole, round((of_pictures + of_clips) / each)), ""),
    }


def _updates(config, updates):
    every = {"checkpoint.every": max(1, updates // 4), "log.validate_every": max(1, updates // 4)}
    return configs.replace(config, {"train.steps": updates} | every)


def _operations(config):
    parts = make_parts(config)
    return config.train.steps * model_flops(parts.denoiser, parts.batch_size)


def _evaluation(member, group, clips):
    run = f"{{sweep}}/{member}"
    command = ("evaluate", "--workdir", run, "--metrics", "captions,coherence,pixels")
    command += ("--num", str(clips))
    made = f"{member}/evaluation.json"
    return Step(f"{member},evaluation", command, (member,), made, group)
