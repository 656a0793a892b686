"""Evaluates zero-shot on UCF-101 by FVD, as table 1 of Lumiere does.

    stunet evaluate --workdir runs/lumiere_base --protocol ucf101_zero_shot

Lumiere's appendix (arXiv 2401.12945) samples 10,235 clips of 16 frames, with prompts in proportion
to the classes of UCF-101, and compares them by the FVD of I3D.

The data set is not on any package registry. Unpack UCF101.rar so that runs/UCF-101 holds a folder
for each of the 101 classes (13,320 videos).

Where the paper is silent, this protocol chooses. Samples are compared with all videos, at the run's
own size. A prompt is the words of the class's name. Others wrote sentences as prompts, and figures
from other prompts cannot be compared. The paper's inception score is left out, since the C3D that
it needs is not on the registries either.

`--num 256` tries the protocol out on 256 samples and as many videos.

Expected result: unknown. The protocol has run only on small folders of the same shape.
"""

import re

from stunet.evaluate.comparison import Protocol


def prompt(name: str) -> str:
    """ "ApplyEyeMakeup" -> "apply eye makeup"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def get_protocol() -> Protocol:
    return Protocol(
        name="UCF-101",
        videos="runs/UCF-101",
        classes=101,
        clips=13_320,
        samples=10_235,
        frames=16,
        fps=25.0,
        prompt=prompt,
        source="what UCF101.rar of the data set's own site holds, a folder for each class,",
    )
