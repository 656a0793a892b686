"""Files that are damaged, replaced or made to deceive are answered in one sentence, or are read."""

import random
import shutil

import inputs
import mutations
import pytest
from conftest import count_mutations

pytestmark = pytest.mark.slow

# No file that is read may make the program take more.
KILOBYTES = 2 * 2**20
# Beyond it a process gets no more memory, so that a fault ends it and not the machine.
LIMITS = {"DATA": 4 * 2**30}
AT_ONCE = 25


@pytest.fixture(scope="session")
def worlds(server, tmp_path_factory):
    """`worlds(name)` is a directory of healthy files, which are made when first asked for."""
    return inputs.Worlds(tmp_path_factory.mktemp("worlds"), server)


def batches() -> list[tuple[str, range]]:
    """Returns the name of an input and the seeds of its mutations, for each batch of them."""
    number = {name: count_mutations(read.weight) for name, read in inputs.INPUTS.items()}
    return [
        (name, range(first, min(first + AT_ONCE, number[name])))
        for first in range(0, max(number.values()), AT_ONCE)
        for name in inputs.INPUTS
        if first < number[name]
    ]


@pytest.mark.parametrize("name", inputs.INPUTS)
def test_healthy_files_are_read(server, worlds, tmp_path, name):
    read = inputs.INPUTS[name]
    assert list(worlds(read.world).glob(read.files))
    for number, command in enumerate(read.commands):
        place = tmp_path / str(number)
        shutil.copytree(worlds(read.world), place)
        ended = server.run(*inputs.words(command, place), limits=LIMITS, real=read.real)
        assert ended.status == 0, ended.output


@pytest.mark.parametrize(("name", "seeds"), batches())
def test_changed_file_is_read_or_explained(server, worlds, tmp_path, name, seeds, count):
    read = inputs.INPUTS[name]
    world = worlds(read.world)
    done, commands = [], []
    for seed in seeds:
        generator = random.Random(f"{name} {seed}")
        place = tmp_path / str(seed)
        shutil.copytree(world, place)
        files = sorted(file for file in place.glob(read.files) if file.is_file())
        file = generator.choice(files)
        change = mutations.mutate(file, read.kind, generator)
        done.append(f"{seed}: {change} of {file.relative_to(place)}")
        commands.append(inputs.words(generator.choice(read.commands), place))
    ended = server.run_all(commands, limits=LIMITS, real=read.real)
    faults = []
    for what, words, end in zip(done, commands, ended, strict=True):
        lines = end.output.splitlines()
        explained = end.status == 0 or any(
            line.startswith(("stunet ", "WRONG ")) and len(line) > 20 for line in lines
        )
        found = {
            "hangs": end.hung,
            "crashes": end.status is not None and end.status not in (0, 1, 2),
            "tracebacks": end.unseemly,
            "without a sentence": not explained,
            "above 2 GiB": end.kilobytes > KILOBYTES,
        }
        count("mutations")
        count(f"mutations refused: {name}" if end.status else f"mutations read: {name}")
        for fault, is_one in found.items():
            count(f"mutations: {fault}", is_one)
            if is_one:
                faults.append(
                    f"{what}: {fault}, status {end.status}, {end.kilobytes >> 10} MiB, "
                    f"{end.seconds:.0f} s\n{' '.join(words)}\n{end.output[-3000:]}"
                )
    shutil.rmtree(tmp_path)
    assert not faults, f"{len(faults)} faults:\n\n" + "\n\n".join(faults)
