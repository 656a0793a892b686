"""Writes the clips of `stunet sample`, and a record of everything that they depend on."""

import dataclasses
import hashlib
import json
import pathlib
import unicodedata

from stunet.data.media import to_uint8
from stunet.errors import UserError
from stunet.files import atomic, check_writable, refusal_explained
from stunet.generate import arrays, text
from stunet.generate.request import Request, Sampled


def check_out(out: pathlib.Path) -> None:
    """Checks that `out` is a directory or can be made. Call it before sampling, which is slow.

    Raises:
        UserError: `out` is a file, or files may not be made in it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {out} is a file; name a directory, or one to be made")
    check_writable(out, "choose an --out in which you may create files")


def write(
    out: pathlib.Path, task: str, request: Request, sampled: Sampled, with_arrays: bool = False
) -> dict[str, pathlib.Path]:
    """Writes clips as a GIF, an MP4 and X-T slices, and NAME.json with all that they depend on.

    With `with_arrays`, NAME.npz holds the clips as arrays (`stunet.generate.arrays`).

    The same request writes the same files again. Files of another request are not overwritten: if
    the name is taken, a hash of the settings is added to it.

    Returns:
        The paths of the files, by the keys "GIF", "MP4", "X-T slice", "settings" and "arrays".

    Raises:
        UserError: `out` cannot be written.
    """
    name = request.name or "_".join(
        [
            _slug(request.prompts[0]) or "no_prompt",
            f"seed{request.seed}",
            *map(_slug, sampled.labels),
        ]
    )
    content = _settings(task, request, sampled)
    rate = sampled.parts.clip.frame_rate
    captions = sampled.captions or request.prompts
    with refusal_explained(out, "choose an --out in which you may create files"):
        name = _vacant(out, _cut(name, 200), content)
        settings = out / f"{name}.json"
        # The settings come first: if writing is cut short, the same command knows its own clips.
        with atomic(settings) as partial:
            partial.write_text(content)
        written = text.write(out, name, sampled.clips, captions, rate, sampled.columns)
        files = {"GIF": written.gif, "MP4": written.mp4, "X-T slice": written.xt}
        files["settings"] = settings
        if with_arrays:
            files["arrays"] = out / f"{name}{arrays.SUFFIX}"
            arrays.write(files["arrays"], shown(task, request, sampled))
    return files


def shown(task: str, request: Request, sampled: Sampled) -> arrays.Shown:
    """Returns clips with all that a page needs to show them."""
    return arrays.Shown(
        task=task,
        command=request.command,
        fps=sampled.parts.clip.frame_rate,
        captions=tuple(sampled.captions or request.prompts),
        clips=to_uint8(sampled.clips),
        given=None if sampled.given is None else to_uint8(sampled.given),
    )


def _settings(task: str, request: Request, sampled: Sampled) -> str:
    content = {
        "task": task,
        "workdir": request.workdir,
        "checkpoint": sampled.checkpoint,
        "prompts": list(request.prompts),
        "seed": request.seed,
        "sample": dataclasses.asdict(sampled.parts.sampling),
    }
    return json.dumps(content | sampled.settings, indent=1, default=str) + "\n"


def _vacant(out: pathlib.Path, name: str, settings: str) -> str:
    """Returns `name`, with a hash of the settings added if `name` is taken by other settings."""
    noted = out / f"{name}.json"
    if noted.is_file():
        vacant = noted.read_bytes() == settings.encode()
    else:
        # Clips of an evaluation have no file of settings beside them.
        vacant = not any(file.exists() for file in vars(text.Written.of(out, name)).values())
    return name if vacant else f"{name}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def _slug(words: str) -> str:
    """Returns words as a part of a file name, joined by underscores.

    Keeps the letters, combining marks and digits of all scripts, and drops other characters.
    """
    kept = (
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in unicodedata.normalize("NFC", words.lower())
    )
    return _cut("_".join("".join(kept).split()), 60)


def _cut(name: str, size: int) -> str:
    """Cuts `name` to at most `size` bytes, without breaking a character.

    File systems allow 255 bytes in a name.
    """
    return name.encode()[:size].decode(errors="ignore")
