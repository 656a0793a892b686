"""Mistakes on the command line get one sentence that says how it is written."""

import shlex

import pytest

from stunet import cli
from stunet.commands import arguments as shared
from stunet.commands import parsing

TRAIN = ["train", "--config", "quickstart", "--workdir", "nowhere"]
SAMPLE = ["sample", "text", "--workdir", "nowhere", "--prompt", "a 3"]


def mistake(arguments, capsys) -> str:
    """The one line that the command line prints before it starts."""
    try:
        status = cli.main(arguments)
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr()
    assert status in (1, 2)
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize(
    "written",
    [
        "--config.train.steps 20",
        "--train.steps=20",
        "--train.steps 20",
        "-train.steps=20",
        "\N{EM DASH}config.train.steps=20",
        "train.steps=20",
        "config.train.steps=20",
    ],
)
@pytest.mark.parametrize("command", ["train", "plan", "sweep", "inflate"])
def test_a_key_that_is_written_wrongly_is_shown_as_it_is_written(command, written, capsys):
    needed = [flag for flag in cli.STUNET.commands[command].parser("stunet")._actions
              if flag.required]  # fmt: skip
    arguments = [word for flag in needed for word in (flag.option_strings[0], "1")]
    line = mistake([command, *arguments, *written.split()], capsys)
    assert line.startswith(f"stunet {command}: ")
    assert "write --config.train.steps=20 (see" in line


def test_a_value_is_quoted_for_the_shell(capsys):
    line = mistake([*TRAIN, "--config.model.temporal_factors", "(1, 2)"], capsys)
    written = line[line.index("--config.model.temporal_factors=") :].partition(" (see")[0]
    assert shlex.split(written) == ["--config.model.temporal_factors=(1, 2)"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        # Flags, even where another argument is missing because of the mistake.
        (["train", "--config", "quickstart", "--wrkdir", "w"], "did you mean '--workdir'?"),
        (["train", "--confg", "quickstart"], "did you mean '--config'?"),
        ([*SAMPLE, "--guidance-scale", "2"], "did you mean '--guidance'?"),
        (["evaluate", "--workdir=w", "--metric=fvd"], "did you mean '--metrics'?"),
        # Keys by meaning, as stunet/configs/suggestions.py finds them.
        ([*TRAIN, "--lr", "1e-4"], "did you mean --config.train.learning_rate=1e-4?"),
        ([*TRAIN, "--train.lr=1e-4"], "did you mean --config.train.learning_rate=1e-4?"),
        ([*TRAIN, "--resolution", "64"], "--config.data.height=64 or --config.data.width=64?"),
        ([*TRAIN, "--seed=3"], "write --config.seed=3"),
        ([*TRAIN, "--epochs=3"], "training counts updates, not epochs"),
        # A command that reads the config of a run.
        ([*SAMPLE, "--config.sample.steps=9"], "takes no keys of the config; did you mean '--ste"),
        # The rest.
        ([*TRAIN, "20"], "unknown argument '20'"),
        ([*TRAIN, "--config.train.steps"], "write --config.train.steps=VALUE"),
        (["train"], "arguments are required: --config, --workdir"),
        ([*SAMPLE, "--num", "0"], "'0' is not a whole number of at least 1"),
        ([*SAMPLE, "--num", "few"], "'few' is not a whole number of at least 1"),
        ([*TRAIN, "--stop-status", "300"], "'300' is not an exit status, 0 to 255"),
        (["prepare", "videos", "shots", "--channels", "2"], "is chosen when training"),
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["--workdir", "w"], "name a command first"),
        (["sample", "imagee"], "unknown task 'imagee'; did you mean 'image'?"),
        (["sample"], "name a task first"),
    ],
)
def test_mistakes_get_one_sentence(arguments, sentence, capsys):
    assert sentence in mistake(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["train", "--config", "help"], "quickstart"),
        (["plan", "--config=help"], "lumiere_base"),
        (["sweep", "--config", "help"], "sweeps/temporal_downsampling"),
        (["evaluate", "--workdir", "w", "--protocol", "help"], "ucf101_zero_shot"),
    ],
)
def test_the_files_that_come_with_stunet_are_listed(arguments, name, capsys):
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == 0
    assert name in [line.split()[0] for line in capsys.readouterr().out.splitlines()]


def test_a_value_that_looks_like_a_flag_is_a_value(capsys):
    """A prompt is whatever the user says."""
    line = mistake([*SAMPLE[:-1], "--config.train.steps = 3?"], capsys)
    assert line.endswith("nowhere holds no training run: there is no config.json in it")


NUMERIC = [
    (words.split()[1:], action.option_strings[0])
    for words, entry in cli.STUNET.walk("stunet")
    if isinstance(entry, parsing.Command)
    for action in entry.parser(words)._actions
    if action.type in (int, float, shared.number, shared.positive, shared.seed)
]


def test_every_kind_of_number_is_tried():
    assert len(NUMERIC) > 30
    assert not [
        (words, action.dest)
        for words, entry in cli.STUNET.walk("stunet")
        if isinstance(entry, parsing.Command)
        for action in entry.parser(words)._actions
        if action.type is float  # takes NaN and infinity
    ]


@pytest.mark.parametrize(("command", "flag"), NUMERIC)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "", "x"])
def test_numbers_are_finite(command, flag, value, capsys):
    line = mistake([*command, f"{flag}={value}"], capsys)
    assert line.startswith(f"stunet {' '.join(command)}: argument {flag}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "1" + 400 * "0"])
def test_keys_of_the_config_are_finite(value, capsys):
    line = mistake([*TRAIN, f"--config.train.learning_rate={value}"], capsys)
    assert "train.learning_rate is" in line
    assert "it must be a number" in line
