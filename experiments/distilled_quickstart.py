"""Distils the quickstart's network, to sample in 4 steps without guidance.

    make quickstart
    stunet train --config distilled_quickstart --workdir runs/quickstart_4
    stunet sample text --workdir runs/quickstart_4 --prompt "a 7 moving right, fast"

The teacher is the run in runs/quickstart, which samples in 40 steps at guidance 4: 80 passes of the
network for each clip, of which the student needs 4. For another number of steps N, add
`--config.distil.steps=N --config.distil.teacher_steps=M`, where M is 4 times N.

Hardware and time: 11 minutes on one AVX-512 core, beside another training.

Expected result: of 120 clips in 4 steps, 68% show all that their captions say, and 79% move
steadily. The teacher, in 40 steps with twice the work in each, has 73% and 85%.
"""

from stunet import configs


def get_config():
    config = configs.start_from("quickstart")

    config.train.init_from = "runs/quickstart"
    config.distil.steps = 4
    # Four of the teacher's steps for each of the student's can be learned in 2,000 updates. More
    # are closer to the teacher's best clips, and take longer to learn.
    config.distil.teacher_steps = 16
    config.distil.guidance_scale = 4.0
    # The student has learned the guided teacher, so it needs no guidance of its own.
    config.sample.guidance_scale = 1.0
    config.sample.steps = 0

    # A seventh of the teacher's rate: the student begins close to where it must go.
    config.train.learning_rate = 3e-4
    config.train.steps = 2000
    config.checkpoint.every = 500
    config.log.validate_every = 500
    return config
