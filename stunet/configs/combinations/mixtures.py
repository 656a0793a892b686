"""Further sources of a run: each is checked as if it were the main one, and their weights."""

import dataclasses

from stunet.configs.combinations.data import frames, source
from stunet.configs.combinations.denoising import conditioning
from stunet.configs.combinations.latents import run_in_latents
from stunet.configs.combinations.mistakes import Mistakes, divides
from stunet.configs.combinations.network import frozen_weights, resolution
from stunet.configs.schema import MAIN, Config, Data, all_sources, shape

# Smallest share of a source that is not 0. `stunet.data.turns` rounds smaller ones.
LEAST_SHARE = 1e-4


def mix(config: Config) -> Mistakes:
    """Checks the further sources of a run: each as if it were the main one, and their weights."""
    main, sources = config.data, all_sources(config.data)
    total = sum(data.weight for data in sources.values())
    if not total:
        yield (
            "data.weight and all weights in data.mix are 0; at least one must be above 0"
            if main.mix
            else "data.weight is 0, and data.mix names no other source; set data.weight above 0"
        )
    if main.clips_per_update:
        yield (
            f"data.clips_per_update is {main.clips_per_update}; for the main source, set "
            "train.batch_size instead"
        )
    sizes: dict[str, tuple[str, int]] = {}
    for name, data in sources.items():
        if name == MAIN:
            continue
        yield from _clips_per_update(config, name, data, sizes)
        if dataclasses.replace(data, weight=main.weight) == sources[MAIN]:
            yield (
                f"data.mix.{name} differs from data in nothing but its weight; set a key in which "
                f"it differs, such as data.mix.{name}.source"
            )
        if 0 < data.weight < LEAST_SHARE * total:
            yield (
                f"data.mix.{name}.weight is {data.weight:g}, and all weights sum to {total:g}; a "
                f"source has at least one of {1 / LEAST_SHARE:,.0f} clips, or the weight 0"
            )
        if data.frames * data.height * data.width > main.frames * main.height * main.width:
            yield (
                f"data.mix.{name} has clips of {shape(data)} (frames, rows, columns), larger than "
                f"those of data, {shape(main)}; let data describe the source with the largest clips"
            )
        alone = dataclasses.replace(config, data=data)
        for check in (frozen_weights, frames, resolution, source, run_in_latents, conditioning):
            for mistake in check(alone):
                yield f"data.mix.{name}: {mistake}"


def _clips_per_update(
    config: Config, name: str, data: Data, sizes: dict[str, tuple[str, int]]
) -> Mistakes:
    """Checks the clips in each update on a further source.

    Args:
        config: the config.
        name: name of the source.
        data: what describes the source.
        sizes: maps each shape of clips so far to a source and its clips in each update.
    """
    clips, key = data.clips_per_update, f"data.mix.{name}.clips_per_update"
    if clips and shape(data) == shape(config.data):
        yield f"{key} is {clips}, and its clips have the shape of data; set train.batch_size"
    if clips:
        yield from divides(clips, key, config.train.accumulate, "train.accumulate")
        other, size = sizes.setdefault(shape(data), (name, clips))
        if size != clips:
            yield (
                f"{key} is {clips} and data.mix.{other}.clips_per_update {size}; both have clips "
                f"of {shape(data)}, which share their updates: give both the same"
            )
