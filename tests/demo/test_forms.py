"""A filled-in form is a command line that `stunet sample` takes, with the values of the form."""

import pathlib
import shlex

import pytest

from stunet.commands.sample import COMMAND, TASKS
from stunet.demo import forms
from stunet.stores import addresses

NETWORK = pathlib.Path("runs/a b")


def parsed(line):
    task, *rest = line
    return COMMAND.commands[task].parser(f"stunet sample {task}").parse(rest)


def test_every_task_has_a_form_and_each_field_is_a_flag_of_the_task():
    assert list(forms.FIELDS) == list(TASKS)
    for task, fields in forms.FIELDS.items():
        known = COMMAND.commands[task].parser(f"stunet sample {task}")._option_string_actions
        assert {f"--{flag}" for flag in (*fields, *forms.SETTINGS, "prompt")} <= known.keys()


FILLED = {
    "text": {"prompt": ["a 3", "-- a 'dash'"], "seed": 2**31 - 1, "num": 3.0, "steps": 7},
    "image": {"image": "/tmp/x/first frame.png", "prompt": [], "seed": 0},
    "inpaint": {"video": "/tmp/x/clip.mp4", "box": "1,2,3,4", "mask": None, "seed": 1},
    "cinemagraph": {"image": "/tmp/x/a.png", "box": "-1,2,3,4", "prompt": ["a"], "seed": 1},
    "video": {"video": "/tmp/x/clip.mp4", "strength": 0.35, "guidance": 2.5, "sampler": "heun"},
    "upscale": {"video": "/tmp/x/clip.mp4", "prompt": [""], "seed": 5},
}


@pytest.mark.parametrize("task", FILLED)
def test_the_command_line_gives_back_what_was_filled_in(task):
    found = parsed(forms.words(task, NETWORK, FILLED[task]))
    assert found.workdir == NETWORK
    for flag, value in FILLED[task].items():
        name = {"guidance": "guidance_scale"}.get(flag, flag)
        got = getattr(found, name)
        if value in (None, "", [], [""]):
            assert got is None
        else:
            assert (str(got) if isinstance(got, pathlib.Path) else got) == value


def test_the_user_sees_the_names_of_files_and_no_places_on_the_server():
    file = "/tmp/stunet_demo_x/0a1b/first frame.png"
    line = forms.words("image", NETWORK, {"image": file, "prompt": ["it's"]})
    shown = shlex.split(forms.shown(line, [file]))
    assert shown[:5] == ["stunet", "sample", "image", "--workdir", "runs/a b"]
    assert shown[5:] == ["--image", "first frame.png", "--prompt", "it's"]
    assert forms.named(f"cannot read {file} (why)", [file]) == "cannot read first frame.png (why)"


def test_the_user_sees_the_address_of_a_run_in_a_bucket():
    line = forms.words("text", addresses.local("gs://bucket/a run"), {"prompt": ["a 3"]})
    shown = shlex.split(forms.shown(line, []))
    assert shown == ["stunet", "sample", "text", "--workdir", "gs://bucket/a run", *line[3:]]
    assert parsed(shown[2:]).workdir == parsed(line).workdir


def test_each_line_is_a_prompt():
    assert forms.prompts(" a 3 \n\n a 5 moving up\n") == ["a 3", "a 5 moving up"]


@pytest.mark.parametrize("corners", [((1, 5), (3, 2)), ((3, 2), (1, 5)), ((1, 2), (3, 5))])
def test_a_box_is_the_same_from_any_two_opposite_corners(corners):
    assert forms.box_between(*corners) == "1,2,3,4"


def test_one_pixel_is_a_box():
    assert forms.box_between((4, 7), (4, 7)) == "4,7,1,1"
