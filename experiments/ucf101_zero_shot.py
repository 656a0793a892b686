"""UCF-101, zero-shot, as Lumiere's table 1 evaluates it (arXiv 2401.12945, appendix): 10,235 clips,
their prompts in proportion to the classes of UCF-101, 16 frames each, by the FVD of I3D.

    stunet evaluate --workdir runs/lumiere_base --protocol experiments/ucf101_zero_shot.py

The data set is not on any package registry: unpack UCF101.rar, so that runs/UCF-101 holds a folder
for each class (13,320 videos of 101). Choices, where the paper is silent: all videos are compared
with, at the run's own size; a prompt is the words of the class's name, where others wrote
sentences, and figures of other prompts are other figures. The C3D of its inception score is not on
the registries either, and left out. `--num 256` tries it out, on as many videos.
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
