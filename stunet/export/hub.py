"""Writes and uploads a run as the Hugging Face hub shows models (`stunet export --format hub`)."""

import dataclasses
import pathlib
from collections.abc import Sequence

from stunet import configs
from stunet.data import media
from stunet.errors import UserError
from stunet.export import model_card, stablehlo
from stunet.generate.hub import failures, library, one_line
from stunet.generate.text import Run, sample_clips

# Name of the repository in a model card that is not uploaded at once.
_PLACEHOLDER = "OWNER/NAME"


def write(
    directory: pathlib.Path,
    run: Run,
    workdir: pathlib.Path,
    prompts: Sequence[str] = (),
    dtype: str | None = None,
    repo: str | None = None,
) -> None:
    """Writes the weights, the programs of `stablehlo.write`, sample clips and README.md.

    The files name no paths of this machine. Keys of the config that do are emptied.

    Args:
        directory: directory to write into, which exists.
        run: run whose network needs only captions, with the sampling settings to export.
        workdir: working directory of the run, whose metrics README.md shows.
        prompts: prompts that a sample clip is made of, and whose token states are written too.
        dtype: dtype of the written weights; None keeps their dtypes.
        repo: name of the repository on the hub, such as "me/digits"; None if it is not known.
    """
    public = configs.without_paths(run.parts.config)
    run = dataclasses.replace(run, parts=dataclasses.replace(run.parts, config=public))
    stablehlo.write(directory, run, prompts, dtype)
    samples = {prompt: f"samples/{i}.gif" for i, prompt in enumerate(dict.fromkeys(prompts))}
    if samples:
        clips = sample_clips(run, list(samples))
        for clip, file in zip(clips, samples.values(), strict=True):
            media.write_gif(directory / file, clip[None], run.parts.denoiser.clip.frame_rate)
    text = model_card.write(run, workdir, samples, repo or _PLACEHOLDER)
    (directory / "README.md").write_text(text)


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
