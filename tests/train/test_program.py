"""A compiled step from a file is bit for bit the same, and is used only where it fits."""

import dataclasses
import importlib.util
import random
import shutil
import threading

import jax
import msgspec
import pytest
import tiny

from stunet import cli
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train import program
from stunet.train.loop import train
from stunet.train.parts import make_parts


def config(**train):
    return tiny.config(
        model=tiny.ONE_LEVEL_KEYS, train=dict(steps=3) | train, checkpoint=dict(every=100)
    )


def lower(config):
    parts = make_parts(config)
    mesh = meshes.make_mesh(parts.layout)
    return program.lower(parts, mesh), mesh


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Returns the file that `stunet compile` writes for `config()`."""
    directory = tmp_path_factory.mktemp("compiled")
    changes = [*tiny.ONE_LEVEL, "--config.train.steps=3"]
    experiment, out = tiny.experiment(directory), directory / "step.program"
    command = ["compile", "--config", experiment, "--topology", "local", "--out", out, *changes]
    assert cli.main([*map(str, command)]) == 0
    return out


@pytest.fixture(scope="module")
def step():
    return lower(config())


@pytest.fixture
def run(tmp_path, capfd):
    """Returns a function that trains, and returns losses, gradient norms and the printed text."""
    count = iter(range(100))

    def run(compiled, **train_keys):
        workdir = tmp_path / f"run{next(count)}"
        train(make_parts(config(**train_keys)), workdir, compiled=compiled)
        lines = [line for line in tiny.metrics(workdir) if "loss" in line]
        values = [(line["loss"], line["grad_norm"]) for line in lines]
        return values, capfd.readouterr().err

    run.again = lambda: train(make_parts(config()), tmp_path / "run0")
    return run


@pytest.fixture
def empty_cache(tmp_path):
    """Gives JAX an empty cache, without the programs of other tests."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def rewrite(file, tmp_path, change):
    """Returns a copy of `file` with a header that `change` has changed, and a matching digest."""
    header, entry = program._read(file)
    change(header)
    header.digest = program._digest(header, entry)
    copy = tmp_path / "changed.program"
    copy.write_bytes(msgspec.json.encode(header) + b"\n" + entry)
    return copy


@pytest.fixture
def compilations():
    """Returns a list that gets the thread of each compilation of a function named `step`."""
    threads = []

    def note(event, _, fun_name="", **__):
        if event == "/jax/core/compile/backend_compile_duration" and "step" in fun_name:
            threads.append(threading.current_thread())

    jax.monitoring.register_event_duration_secs_listener(note)
    yield threads
    jax.monitoring.unregister_event_duration_listener(note)


def test_the_step_is_compiled_once_beside_the_making_of_the_state(run, compilations):
    run(None)
    (thread,) = compilations
    assert thread is not threading.main_thread()
    # A run that is done compiles nothing.
    run.again()
    assert len(compilations) == 1


def test_the_message_of_an_error_does_not_wait_for_the_compiler():
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    class SlowUpdate:
        def lower(self, *_):
            begun.set()
            may_end.wait(5)
            ended.set()

    def fail_beside(parts):
        mesh = meshes.make_mesh(parts.layout)
        with program.compiled_beside(SlowUpdate(), parts, None, mesh, None, print):
            assert begun.wait(60)
            raise UserError("a record is damaged")

    with pytest.raises(UserError, match="damaged"):
        fail_beside(make_parts(config()))
    assert not ended.is_set()
    may_end.set()


@pytest.mark.slow
def test_training_with_a_saved_step_is_bitwise_equal_to_compiling(file, run):
    plain, _ = run(None)
    loaded, said = run(file)
    assert len(plain) == 3
    assert loaded == plain
    assert f"the compiled step comes from {file}" in said


@pytest.mark.slow
def test_the_first_start_writes_the_file_and_the_next_one_takes_it(tmp_path, run):
    file = tmp_path / "kept" / "step.program"
    file.parent.mkdir()
    first, said = run(file)
    assert f"{file} keeps the compiled step for the next start" in said
    second, said = run(file)
    assert f"the compiled step comes from {file}" in said
    assert first == second


@pytest.mark.slow
def test_the_step_of_another_config_is_refused_and_stays(file, tmp_path, run):
    copy = tmp_path / "copy.program"
    shutil.copy(file, copy)
    other, said = run(copy, learning_rate=3e-3)
    assert f"{copy} was compiled for another config or another version of stunet; the step" in said
    assert len(other) == 3
    assert copy.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("field", program._NAMES)
def test_a_step_for_something_else_is_refused(field, file, step, tmp_path):
    others = {int: 7, str: "0", list: ["--xla_other"]}

    def change(header):
        other = others[type(getattr(header.target, field))]
        header.target = dataclasses.replace(header.target, **{field: other})

    with pytest.raises(UserError, match=f"was compiled for {program._NAMES[field]}"):
        program._take(rewrite(file, tmp_path, change), *step)


def test_every_field_of_a_target_is_compared():
    assert set(program._NAMES) == {field.name for field in dataclasses.fields(program._Target)}


@pytest.mark.slow
def test_a_step_under_another_key_is_not_run(file, tmp_path, empty_cache):
    def change(header):
        header.key = header.key[:-64] + 64 * "0"

    with pytest.raises(UserError, match="JAX does not know the key jit_step-0"):
        program._take(rewrite(file, tmp_path, change), *lower(config()))


@pytest.mark.parametrize("key", ["../../x", "jit_step-" + 64 * "g", "/jit_step-" + 64 * "0", ""])
def test_a_key_is_no_path(key, file, tmp_path):
    with pytest.raises(UserError, match="is damaged"):
        program._read(rewrite(file, tmp_path, lambda header: setattr(header, "key", key)))


def test_damaged_files_are_refused_in_one_sentence(file, tmp_path, step):
    content, damaged = file.read_bytes(), tmp_path / "damaged.program"
    header, draw = content.index(b"\n"), random.Random(0)
    places = [draw.randrange(header) for _ in range(100)]
    places += [draw.randrange(header, len(content)) for _ in range(30)]
    variants = [
        content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
        for at in places
    ]
    variants += [content[: draw.randrange(len(content))] for _ in range(10)]
    for variant in [*variants, b"", b"{}", b"null\n", b"\xff" + content]:
        damaged.write_bytes(variant)
        said = program._use(damaged, *step)
        assert str(damaged) in said
        assert said.endswith("; the step is compiled as usual")
        assert "\n" not in said


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path, step):
    said = program._use(tmp_path, *step)
    assert said == f"{tmp_path} cannot be read (Is a directory); the step is compiled as usual"


def test_settings_of_the_cache_are_as_before(file, step):
    names = ("jax_compilation_cache_dir", *program._SETTINGS)
    before = [getattr(jax.config, name) for name in names]
    program._use(file, *step)
    assert [getattr(jax.config, name) for name in names] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "h100:8"], "run this command there, with --topology local"),
        (["--topology", "local", "--slices=2"], "--topology local has no slices"),
        (["--topology", "local", "--out", "/"], "--out / is a directory; choose another place"),
    ],
)
def test_what_cannot_be_compiled_is_told(arguments, message, tmp_path, monkeypatch, capsys):
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "cpu")
    experiment = str(tiny.experiment(tmp_path))
    words = ["compile", "--config", experiment, "--out", str(tmp_path / "out"), *arguments]
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the extra [tpu]")
def test_tpus_that_are_elsewhere_get_a_program_that_this_machine_refuses(tmp_path, step):
    out = tmp_path / "tpu.program"
    words = ["compile", "--config", tiny.experiment(tmp_path), "--topology", "v5e-4", "--out", out]
    done = tiny.run(*words, *tiny.ONE_LEVEL)
    assert done.returncode == 0, done.stderr
    target = program._read(out)[0].target
    assert (target.device, target.devices, target.processes) == ("TPU v5 lite", 4, 1)
    said = program._use(out, *step)
    assert said == (
        f"{out} was compiled for another kind of device (TPU v5 lite, not cpu); the step is "
        "compiled as usual"
    )
