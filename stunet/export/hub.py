"""Writes and uploads a run as the Hugging Face hub shows models (`stunet export --format hub`)."""

import dataclasses
import pathlib
from collections.abc import Sequence

from stunet import configs
from stunet.data import media
from stunet.data.sources import held_out_captions
from stunet.errors import UserError
from stunet.export import model_card, stablehlo
from stunet.export.programs import find_obstacle
from stunet.generate.hub import failures, library, one_line
from stunet.generate.networks import WEIGHTS
from stunet.generate.text import Run, check_unconditioned, makes_clips_of_captions, sample_clips
from stunet.progress import note
from stunet.train.sampling import WithWeaker
from stunet.train.saved import weights_file

# Name of the repository in a model card that is not uploaded at once.
_PLACEHOLDER = "OWNER/NAME"
# Sample clips, if the user gives no prompts.
_EXAMPLES = 4


def write(
    directory: pathlib.Path,
    run: Run,
    workdir: pathlib.Path,
    prompts: Sequence[str] = (),
    dtype: str | None = None,
    repo: str | None = None,
) -> None:
    """Writes the weights, sample clips, README.md, and the programs of `stablehlo.write`.

    Where no programs can be made (`programs.find_obstacle`), a note and README.md say why. With
    autoguidance, a second file holds the weights of the weaker version.

    The files name no paths of this machine. Keys of the config that do are emptied, or filled with
    what a reader can find (`configs.without_paths`).

    Args:
        directory: directory to write into, which exists.
        run: run with the sampling settings to export.
        workdir: working directory of the run, whose metrics README.md shows.
        prompts: prompts that a sample clip is made of, and whose token states are written beside
            programs; captions of held-out clips if there are none.
        dtype: dtype of the written weights; None keeps their dtypes.
        repo: name of the repository on the hub, such as "me/digits"; None if it is not known.

    Raises:
        UserError: the run makes no clips; or there are prompts, and it needs more than prompts.
    """
    parts, obstacle = run.parts, find_obstacle(run.parts)
    public = dataclasses.replace(parts, config=configs.without_paths(parts.config))
    if prompts:
        check_unconditioned(workdir, parts)
    elif makes_clips_of_captions(parts):
        prompts = held_out_captions(parts.dataset, _EXAMPLES)
        if not prompts:
            note(
                "README.md shows no sample clips, because held-out captions are missing; --prompt "
                "gives some"
            )
    samples = {prompt: f"samples/{i}.gif" for i, prompt in enumerate(dict.fromkeys(prompts))}
    if samples:
        clips = sample_clips(run, list(samples))
        for clip, file in zip(clips, samples.values(), strict=True):
            media.write_gif(directory / file, clip[None], parts.clip.frame_rate)
    run = dataclasses.replace(run, parts=public)
    if obstacle:
        note(f"no programs are written: {obstacle.reason}")
        run = _write_weights(directory, run, dtype)
    else:
        stablehlo.write(directory, run, list(samples), dtype)
    text = model_card.write(run, workdir, samples, repo or _PLACEHOLDER, obstacle)
    (directory / "README.md").write_text(text)


def _write_weights(directory: pathlib.Path, run: Run, dtype: str | None) -> Run:
    """Writes the weights without programs. Returns the run without those of a weaker version."""
    params, config = run.params, run.parts.config
    if isinstance(params, WithWeaker):
        named = weights_file.cast(params.weaker, dtype)
        weights_file.write(directory / configs.WEAKER, named, config, None)
        params = params.params
    named = weights_file.cast(params, dtype)
    weights_file.write(directory / WEIGHTS, named, config, run.checkpoint)
    return dataclasses.replace(run, params=params)


def check(repo: str | None) -> None:
    """Checks that huggingface_hub is installed and, for an upload, logged in.

    Args:
        repo: repository to upload to; None to upload nothing.

    Raises:
        UserError: it is not installed or not logged in, or `repo` is no name of a repository.
    """
    hub = library("--format hub")
    if repo is None:
        return
    try:
        hub.utils.validate_repo_id(repo)
        owner, _ = repo.split("/")
    except ValueError as error:
        raise UserError(f"--push {repo!r} is no OWNER/NAME of a repository on the hub") from error
    if hub.get_token() is None:
        raise UserError(
            f"--push {repo} needs an account of the Hugging Face hub; log in with `hf auth login`, "
            f"as {owner} or a member of it"
        )


def push(directory: pathlib.Path, repo: str) -> str:
    """Uploads an exported run as one commit. A repository that does not exist is made private.

    Args:
        directory: what `write` has written.
        repo: name of the repository.

    Returns:
        The address of the repository's page.

    Raises:
        UserError: the hub refuses the upload or cannot be reached. The directory stays.
    """
    api = library("--push").HfApi()
    try:
        page = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=directory, commit_message="Export of a run of stunet"
        )
    except failures() as error:
        raise UserError(
            f"{repo} cannot be uploaded ({one_line(error)}); {directory} has all files: to try "
            f"again, run `hf upload {repo} {directory}`"
        ) from error
    return str(page)
