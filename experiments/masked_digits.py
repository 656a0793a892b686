"""The quickstart conditioned on masks: image-to-video, inpainting and cinemagraphs of digits.

    make quickstart
    stunet train --config experiments/masked_digits.py --workdir runs/masked_digits
    stunet sample image --workdir runs/masked_digits --image digit.png --prompt "a 7 moving up"

It begins with the quickstart's weights, its first convolution widened with zeros from 1 channel to
3, as Lumiere fine-tunes one text-to-video network for all of these (arXiv 2401.12945, section 4.1).
`--config.train.init_from=` trains from scratch. The shares of the masks are a choice: the paper
names none.

All clips of moving digits are drawn from, not the quickstart's 32: what is given tells the digit,
which no network this small learns by caption. 5 minutes on one CPU core; what it makes of held-out
clips is 4 to 6 dB nearer to them than copies of their first frame.
"""

import pathlib
import runpy


def get_config():
    quickstart = pathlib.Path(__file__).with_name("quickstart.py")
    config = runpy.run_path(str(quickstart))["get_config"]()
    config.train.init_from = "runs/quickstart"
    config.data.num_clips = 0
    config.masks.text = 0.1
    config.masks.image = 0.3
    config.masks.inpaint = 0.3
    config.masks.outpaint = 0.1
    config.masks.cinemagraph = 0.2
    return config
