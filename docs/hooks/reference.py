"""Adds the pages that are generated from the code: config keys, commands and the Python API.

They are made while the site is built, so they cannot be out of date. `tests/docs` checks that each
key and each command is on them.
"""

import dataclasses
import os
import pathlib
import pkgutil
import typing

from stunet import cli
from stunet.commands.parsing import Command, Group

ROOT = pathlib.Path(__file__).parents[2]

# Rooms without a page of their own: the reference of commands says what these do.
WITHOUT_API = {"cli", "commands", "__main__"}


def on_files(files, config):
    """Adds the generated pages to the site (an event of MkDocs)."""
    from mkdocs.structure.files import File

    pages = {
        "index.md": (ROOT / "README.md").read_text(),
        "reference/config.md": config_page(),
        "reference/commands.md": commands_page(),
        **{f"reference/api/{name}.md": api_page(name) for name in api_rooms()},
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def config_page() -> str:
    """Returns the page of every config key, from `stunet/configs/schema/`."""
    from stunet.configs import schema

    types = typing.get_type_hints(schema.Config)
    groups = [(f.name, types[f.name]) for f in dataclasses.fields(schema.Config)]
    lines = [
        "# Config keys",
        "",
        "Every key that an experiment may set, with its default. On the command line a key is "
        "written `--config.GROUP.KEY=VALUE`, for example `--config.train.steps=2000`. A tuple is "
        "written `--config.model.channel_multipliers=1,2,4`. A key without a group is written "
        "`--config.seed=1`.",
        "",
        "## Without a group",
        "",
        *_table("", schema.Config, [n for n, t in groups if not dataclasses.is_dataclass(t)]),
    ]
    for name, group in groups:
        if dataclasses.is_dataclass(group):
            lines += ["", f"## {name}", "", *_paragraphs(group.__doc__), ""]
            lines += _table(f"{name}.", group, [f.name for f in dataclasses.fields(group)])
    return "\n".join(lines) + "\n"


def _table(prefix: str, group: type, names: list[str]) -> list[str]:
    """Returns the rows of a group's keys: what each is called and may be, and what it means."""
    fields = {f.name: f for f in dataclasses.fields(group)}
    types = typing.get_type_hints(group)
    lines = ["| key, default and values | meaning |", "|---|---|"]
    for name in names:
        field, key, kind = fields[name], prefix + name, types[name]
        default = repr(field.default).replace("'", '"')
        values = _values(str(kind) if typing.get_origin(kind) else kind.__name__, field.metadata)
        title = f"[`{key}`](#{key}){{#{key}}}"
        lines.append(f"| {title}<br>default `{default}`<br>{values} | {field.metadata['doc']} |")
    return lines


def _values(kind: str, range_: dict) -> str:
    """Describes the values that a key may have: its choices, or its type and range."""
    if range_["choices"]:
        choices = [f"`{choice!r}`".replace("'", '"') for choice in range_["choices"]]
        own = ["[your own](../how-to/extend.md#without-changing-stunet)"] if range_["own"] else []
        return ", ".join(choices + own)
    bounds = [
        f"{sign} {range_[name]:,}"
        for name, sign in (("least", "≥"), ("above", ">"), ("most", "≤"), ("below", "<"))
        if range_[name] is not None
    ]
    return ", ".join([f"`{kind}`", *bounds])


def _paragraphs(doc: str) -> list[str]:
    return [line.strip() for line in doc.strip().splitlines()]


def commands_page() -> str:
    """Returns the page of every command's help, from the parsers of the command line."""
    lines = [
        "# Commands",
        "",
        "What `stunet COMMAND --help` prints. An option that is written with an equals sign also "
        "works with a space, and the other way round.",
    ]
    for name, command in cli.STUNET.walk("stunet"):
        if name != "stunet":
            level = "#" * name.count(" ")
            lines += ["", f"#{level} {name}", "", "```text", help_of(name, command), "```"]
    return "\n".join(lines) + "\n"


def help_of(name: str, command: Command | Group) -> str:
    """Returns a command's help as it prints on a terminal of 80 columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        return command.help(name).strip()
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def api_rooms() -> list[str]:
    """Returns the rooms of the package that have a page, and `stunet` for what is in none."""
    names = [m.name for m in pkgutil.iter_modules([str(ROOT / "stunet")]) if m.ispkg]
    return ["stunet", *(name for name in sorted(names) if name not in WITHOUT_API)]


def api_modules(room: str) -> list[str]:
    """Returns the modules that the page of a room documents, in the order of their names."""
    folder = ROOT / "stunet" / ("" if room == "stunet" else room)
    top = "stunet" if room == "stunet" else f"stunet.{room}"
    found = []
    for module in pkgutil.walk_packages([str(folder)], f"{top}."):
        below = module.name.removeprefix("stunet.").split(".")[0]
        if not module.name.split(".")[-1].startswith("_") and (
            room != "stunet" or not (module.ispkg or "." in module.name[7:] or below in WITHOUT_API)
        ):
            found.append(module.name)
    return [top, *found]


def api_page(room: str) -> str:
    """Returns the page of a room: a directive of mkdocstrings for each of its modules."""
    first, *modules = api_modules(room)
    # The package of configs only repeats names of its modules.
    members = "\n      members: []" if room == "configs" else ""
    head = f"::: {first}\n    options:\n      heading_level: 1{members}"
    return "\n\n".join([head, *(f"::: {module}" for module in modules)]) + "\n"
