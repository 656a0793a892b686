"""Fine-tunes a network on masks: image-to-video, inpainting, cinemagraphs.

    stunet train --config memorised_digits --workdir runs/memorised_digits
    stunet train --config masked_digits --workdir runs/masked_digits
    stunet sample image --workdir runs/masked_digits --image digit.png --prompt "a 7 moving left"

Training begins with the weights of runs/memorised_digits. The first convolution goes from 1 input
channel to 3, and zeros fill the new weights. Lumiere fine-tunes one text-to-video network for all
of these tasks in the same way (arXiv 2401.12945, section 4.1). `--config.train.init_from=` (empty)
trains from scratch. The paper names no shares of the masks: the shares below are a choice.

The data are all clips of moving digits, not the 32 that were memorised. The given part shows the
digit, which 800 updates do not teach from captions.

Hardware and time: 5 minutes of one CPU core for 800 updates.

Expected result: generated parts of held-out clips are 4 to 6 dB nearer to the truth than copies of
the first frame. docs/how-to/sampling.md has the figures for each task.
"""

from stunet import configs


def get_config():
    config = configs.start_from("memorised_digits")
    config.train.init_from = "runs/memorised_digits"
    config.data.num_clips = 0
    config.masks.text = 0.1
    config.masks.image = 0.3
    config.masks.inpaint = 0.3
    config.masks.outpaint = 0.1
    config.masks.cinemagraph = 0.2
    return config
