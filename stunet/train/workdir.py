"""Makes sure that only one config, and only one training at a time, uses a working directory."""

import contextlib
import pathlib
from collections.abc import Iterator

from stunet import configs
from stunet.errors import UserError
from stunet.files import locked, refusal_explained
from stunet.parallel import hosts


@contextlib.contextmanager
def claimed(config: configs.Experiment, workdir: pathlib.Path) -> Iterator[None]:
    """Context manager in which no other run can use `workdir`.

    Raises:
        UserError: the directory belongs to another config, this process may not write to it, or
            another training is running in it.
    """
    with contextlib.ExitStack() as stack:
        with refusal_explained(workdir, "choose a --workdir in which you may create files"):
            note_config(config, workdir)
            if hosts.is_first():
                # A second run would take the first one's unfinished checkpoints for what a killed
                # run left, and remove them.
                busy = (
                    f"a training is running in {workdir}; wait for it, or choose another --workdir"
                )
                stack.enter_context(locked(workdir, busy))
        yield


def note_config(config: configs.Experiment, workdir: pathlib.Path) -> None:
    """Writes the config to `workdir`, or checks that it is the one written there.

    Only the first process writes. The others wait for it, and check that they see the same config.

    Raises:
        UserError: the directory belongs to another config, or the processes do not share the same
            directory or the same config.
    """
    file = workdir / "config.json"
    if hosts.is_first():
        if file.exists():
            differences = configs.differences(configs.read(file), config)
            if differences:
                raise UserError(
                    f"{workdir} belongs to another config: {'; '.join(differences)}; "
                    "choose another --workdir or the same values"
                )
        # An equal config is not written again: others may be reading it.
        if not file.exists() or configs.read(file) != config:
            workdir.mkdir(parents=True, exist_ok=True)
            configs.write(config, file)
    hosts.wait_for_all("workdir claimed")
    if not file.exists():
        raise UserError(
            f"{workdir} is not the directory that process 0 sees; "
            "choose a --workdir on a file system that all processes share"
        )
    if configs.read(file) != config:
        raise UserError(
            f"{file}, which process 0 has just written, is not this process's config; "
            "start all processes with the same --config and values"
        )
