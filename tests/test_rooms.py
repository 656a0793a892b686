"""The structure of the library: imports point one way, and the config is read at one door."""

import ast
import dataclasses
import graphlib
import pathlib
import re

import pytest

import stunet
from stunet.configs import schema

PACKAGE = pathlib.Path(stunet.__file__).parent
README = pathlib.Path(__file__).parents[1] / "README.md"
# From the bottom up: a room imports only rooms that come before it. README.md has the same order.
ROOMS = (
    *("errors", "extensions", "formatting", "progress", "signals", "source_code"),
    *("files", "paths", "jsonfiles", "tensorfiles", "stores"),
    *("configs", "diffusion", "nn", "data", "prepare", "parallel", "train"),
    *("weights", "plan", "generate", "evaluate", "sweep", "report", "export", "demo", "doctor"),
    *("commands", "cli", "__main__"),
)
# What `stunet.load` needs is imported when it is called.
FRONT = "__init__"


def modules() -> dict[str, ast.Module]:
    """The syntax tree of each module, by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)
        found[name] = ast.parse(file.read_text(), str(file))
    return found


MODULES = modules()


def imports(tree: ast.Module) -> set[str]:
    """The modules of this package that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module
                for alias in node.names
            }
    return {name for name in found if name.startswith("stunet.")}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place():
    assert {room(name) for name in MODULES} <= {*ROOMS, FRONT}


def test_the_readme_lists_the_rooms_in_this_order():
    listed = re.findall(r"^  (\w+)/ ", README.read_text(), re.MULTILINE)
    assert listed == [name for name in ROOMS if (PACKAGE / name).is_dir()]


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) != FRONT])
def test_imports_point_one_way(module):
    ours = ROOMS.index(room(module))
    for other in imports(MODULES[module]):
        assert ROOMS.index(room(other)) <= ours, f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imports(tree) - {name} for name, tree in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


# The rooms that read keys of the config: they define it, turn it into parts, or talk to the user.
READERS = ("stunet.configs", "stunet.train.parts", "stunet.commands")
CLASSES = {name for name, value in vars(schema).items() if dataclasses.is_dataclass(value)}
GROUPS = {field.name for field in dataclasses.fields(schema.Config)}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(READERS)])
def test_the_config_is_read_at_the_door(module):
    """Other rooms take parts. They neither name the schema's classes nor read a key of a config."""
    tree = MODULES[module]
    assert "stunet.configs.schema" not in imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "stunet.configs":
            assert not {alias.name for alias in node.names} & CLASSES
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            assert not (owner == "configs" and node.attr in CLASSES), ast.unparse(node)
            is_config = re.search(r"(^|[._])config$", owner) and not owner.endswith("jax.config")
            assert not (is_config and node.attr in GROUPS), ast.unparse(node)


def test_every_key_of_the_model_reaches_the_network():
    """A key is a field of the network with the same meaning, or is turned into one by name."""
    from stunet.nn.stunet import STUNet

    turned = {
        "channel_multipliers": "channels",
        "layers": "layers_per_level",
        "temporal": "temporal_factors",
        "learned_variance": "out_channels",
    }
    keys = {field.name for field in dataclasses.fields(schema.Model)}
    fields = {field.name for field in dataclasses.fields(STUNet)} - {"parent", "name"}
    assert keys - fields == set(turned)
    # `pixels` comes from `autoencoder.factor`.
    assert fields - keys == {"out_channels", "param_dtype", "pixels"}
