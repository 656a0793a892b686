#!/usr/bin/env python3
"""Writes the steps of launch/Dockerfile as a bash script, for a machine without Docker.

    launch/steps.py --root build/image EXTRA=tpu | bash

The files of the image go under the root instead. The base image, a Python, becomes a virtual
environment of this machine's `python3`. The script has the instructions FROM python:..., ARG, ENV,
WORKDIR, COPY and RUN of the Dockerfile. It leaves out CMD, which runs nothing while an image is
built, and refuses any other instruction.
"""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

CONTEXT = pathlib.Path(__file__).resolve().parents[1]
DOCKERFILE = CONTEXT / "launch" / "Dockerfile"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="launch/steps.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        required=True,
        type=pathlib.Path,
        metavar="DIR",
        help="directory to fill (required)",
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="NAME=VALUE",
        help="build arguments, as for docker --build-arg, such as EXTRA=tpu",
    )
    parsed = parser.parse_args()
    arguments = dict(word.partition("=")[::2] for word in parsed.arguments)
    try:
        print("\n".join(steps(DOCKERFILE.read_text(), CONTEXT, parsed.root, arguments)))
    except ValueError as error:
        print(f"launch/steps.py: {error}", file=sys.stderr)
        return 1
    return 0


def steps(
    dockerfile: str, context: pathlib.Path, root: pathlib.Path, arguments: Mapping[str, str]
) -> Iterator[str]:
    """Yields the lines of the script.

    Args:
        dockerfile: text of the Dockerfile.
        context: directory that COPY copies from.
        root: directory that stands for `/` of the image.
        arguments: build arguments, by the names that ARG gives them.

    Raises:
        ValueError: an instruction or a base image is unknown; no ARG has the name of an argument;
            a file that COPY copies does not exist.
    """
    left, workdir = dict(arguments), pathlib.PurePosixPath("/")
    yield "#!/usr/bin/env bash"
    yield "set -euo pipefail"
    yield f"root=$(realpath --canonicalize-missing {shlex.quote(str(root))})"
    yield f"context={shlex.quote(str(context))}"
    for name, rest in instructions(dockerfile):
        words = shlex.split(rest)
        if name == "FROM" and words[0].startswith("python:"):
            yield 'python3 -m venv "$root/venv"\nexport PATH=$root/venv/bin:$PATH'
        elif name == "ARG":
            key, _, value = rest.partition("=")
            yield f"export {key}={shlex.quote(left.pop(key, value))}"
        elif name == "ENV":
            yield "export " + shlex.join(words)
        elif name == "WORKDIR":
            workdir /= words[0]
            yield f"mkdir -p {_inside(workdir)}\ncd {_inside(workdir)}"
        elif name == "COPY":
            yield from _copy(words, context, workdir)
        elif name == "RUN":
            yield rest
        elif name != "CMD":
            raise ValueError(f"the Dockerfile's {name} {rest} is not known here")
    if left:
        raise ValueError(f"the Dockerfile has no ARG {' or '.join(left)}")


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yields the name of each instruction, and its arguments on one line."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def _copy(
    words: Sequence[str], context: pathlib.Path, workdir: pathlib.PurePosixPath
) -> Iterator[str]:
    """Yields the lines for COPY. As in Docker, a directory is copied without its own name."""
    *sources, target = words
    to = _inside(workdir / target)
    for source in sources:
        if not (context / source).exists():
            raise ValueError(f"there is no {context / source}, which the Dockerfile copies")
    there = [f'"$context"/{shlex.quote(s)}' + "/." * (context / s).is_dir() for s in sources]
    if target.endswith("/") or any((context / s).is_dir() for s in sources):
        yield f"mkdir -p {to}"
    yield f"cp -R {' '.join(there)} {to}"


def _inside(path: pathlib.PurePosixPath) -> str:
    return f'"$root"{shlex.quote(str(path))}'


if __name__ == "__main__":
    sys.exit(main())
