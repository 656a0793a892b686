"""`stunet export --format stablehlo`: programs, weights and a card, to be used with JAX alone."""

import json
import pathlib
from collections.abc import Sequence

import jax
from safetensors.numpy import save_file

from stunet.data.sources import make_encoder
from stunet.export.card import make_card
from stunet.export.programs import export_program, make_programs
from stunet.generate.text import Run
from stunet.train import weights_file

CARD = "card.json"
_PARAMS, _PROMPTS = "params.safetensors", "prompts.safetensors"


def write(
    directory: pathlib.Path, run: Run, prompts: Sequence[str] = (), dtype: str | None = None
) -> None:
    """Writes what an inference system needs of a run.

    Args:
        directory: that is there.
        run: that needs nothing but captions (`text.load_unconditioned`), with the settings to
            sample at.
        prompts: whose token states are written too, since text encoders are not exported.
        dtype: of the weights (`weights_file.cast`).
    """
    named = weights_file.cast(run.params, dtype)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in named.items()}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), run.params)
    programs = make_programs(run.config, like)
    files = {name: f"{name}.jax_export" for name in programs} | {"params": _PARAMS}
    weights_file.write(directory / _PARAMS, named, run.config, run.checkpoint)
    for name, program in programs.items():
        exported = export_program(program, shapes)
        (directory / files[name]).write_bytes(exported.serialize())
    if prompts:
        files["prompts"] = _PROMPTS
        text, text_mask = make_encoder(run.config.text)(list(prompts))
        save_file({"text": text, "text_mask": text_mask}, directory / _PROMPTS)
    card = make_card(run, programs, files, prompts, exported.calling_convention_version)
    (directory / CARD).write_text(json.dumps(card, indent=1) + "\n")
