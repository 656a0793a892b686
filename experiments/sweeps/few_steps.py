"""How well do distilled networks sample in few steps, beside their teacher?

    stunet sweep --config few_steps --workdir runs/few_steps --jobs 2
    stunet report runs/few_steps

The teacher is the quickstart's network at half of its width. Each student learns what the teacher
does at guidance 4 in four times as many steps of DDIM. All make 120 clips, one for each caption:
the students in their own number of steps, and the teacher in each of these numbers and in 40.
Students train on half as many clips in each update. `--config few_steps:3` does all with 3 seeds.

Hardware and time: on 1 AVX-512 core that other work kept busy, the teacher took 18 minutes and each
student 12 to 16.

Expected result, of one seed: all that the caption says is shown in 18, 32, 38 and 38% of the clips
that students make in 1, 2, 4 and 8 steps, in 6, 14, 37 and 41% of the teacher's in as many steps,
and in 42% of the teacher's in 40. docs/how-to/distillation.md has the whole table.
"""

from stunet import configs
from stunet.sweep.members import Member, Step, Sweep, evaluations, replace

STEPS = (1, 2, 4, 8)
SIZE = {"model.channels": 16, "model.head_channels": 16}
MEASURED = ("--num", "120", "--metrics", "captions,coherence")
PREDICTIONS = (
    "In 1, 2 and 4 steps, the student's clips are right in more cases than the teacher's in as "
    "many steps.",
    "The student in 8 steps is right in as many cases as the teacher in 40.",
    "The student in 1 step is the worst of the students: its clips are blurred.",
)


def get_sweep(seeds="1"):
    entries = [entry for seed in range(int(seeds)) for entry in _entries(seed)]
    return Sweep(entries, predictions=PREDICTIONS)


def _entries(seed):
    """Returns the teacher, the students, and the evaluations of all of them."""
    own = SIZE | {"seed": seed}
    config = configs.start_from("quickstart")
    config = replace(config, own | {"train.steps": 3000, "checkpoint.every": 1000})
    teacher = Member(f"teacher,seed={seed}", config, label="teacher in 40 steps")
    place = f"{{sweep}}/{teacher.name}"
    students, few = [], []
    for steps in STEPS:
        end = "1 step" if steps == 1 else f"{steps} steps"
        distilled = own | {
            "train.init_from": place,
            "train.batch_size": 4,
            "distil.steps": steps,
            "distil.teacher_steps": 4 * steps,
            # Each number of steps has a loss of its own, so losses compare no students.
            "log.validate_every": 0,
        }
        config = replace(configs.start_from("distilled_quickstart"), distilled)
        name, after = f"student_{steps},seed={seed}", (teacher.name,)
        students.append(Member(name, config, label=f"student in {end}", after=after))

        name = f"teacher_in_{steps},seed={seed}"
        command = ["evaluate", "--workdir", place, "--steps", str(steps), *MEASURED]
        command += ["--out", f"{{sweep}}/{name}"]
        makes, label = f"{name}/evaluation.json", f"teacher in {end}"
        few.append(Step(name, tuple(command), after, makes, label=label))
    return [teacher, *students, *evaluations([teacher, *students], *MEASURED), *few]
