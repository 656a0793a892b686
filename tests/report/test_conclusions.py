"""What the report says in words, of arms whose seeds are not the same."""

import re

from stunet.report.conclusions import answers
from stunet.report.results import Run


def said(arms, side="lower"):
    """The answer of one figure, `{arm: {seed: value}}`, without tags."""
    runs = {
        arm: [
            Run(
                **dict.fromkeys(("config", "step_flops", "sampling_flops", "gif", "xt")),
                **dict(name=f"{arm},seed={seed}", arm=arm, seed=seed, step=1, finished=True),
                **dict(lines=(), training_flops=1),
                figures={"deviation": value},
                better={"deviation": side},
            )
            for seed, value in values.items()
        ]
        for arm, values in arms.items()
    }
    (line,) = answers(runs, list(arms))
    return re.sub(r"<[^>]*>", "", line)


# B is lower than A by 1.97 on either seed of both, and seeds 2 to 4, which it lacks, are easy.
EASY = dict(enumerate((9.0, 9.5, 1.0, 1.2, 1.1)))
UNFINISHED = {0: 7.03, 1: 7.53}


def test_the_best_arm_is_the_one_that_wins_on_the_seeds_of_both():
    for arms in ({"A": EASY, "B": UNFINISHED}, {"B": UNFINISHED, "A": EASY}):
        assert re.fullmatch(
            r"Lowest deviation: B, 7\.3 ± 3\.2\. Clearly higher: A by 1\.97.*\.", said(arms)
        )
    assert said({"A": EASY, "B": UNFINISHED}, "higher").startswith("Highest deviation: A")


def test_an_arm_of_one_seed_does_not_decide_between_others():
    # B is lower than A but for seed 0, the only one of all three, and lacks an easy seed.
    b = {seed: EASY[seed] - 0.5 for seed in (1, 2, 3)} | {0: 9.1}
    found = said({"A": EASY, "B": b, "C": {0: 9.3}})
    assert found.startswith("Lowest deviation: B")
    assert "A single seed cannot rank: C" in found


def test_arms_without_a_seed_of_both_are_ranked_by_their_means():
    found = said({"A": {0: 2.0, 1: 2.1}, "B": {2: 1.0, 3: 1.1}})
    assert found.startswith("Lowest deviation: B")
    assert "cannot rank: A" in found


def test_what_is_clear_is_never_said_the_wrong_way_round():
    # A beats B, C beats A and B beats C, by 1 each, on the seeds of both.
    arms = {
        "A": {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0},
        "B": {0: 2.0, 1: 2.0, 4: 1.0, 5: 1.0},
        "C": {2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0},
    }
    found = said(arms)
    assert found.startswith("Lowest deviation: C")
    assert "Clearly higher: A by 1." in found
    assert "Clearly lower on the seeds of both: B by 1." in found
