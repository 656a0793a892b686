"""Judges a trained run: measures clips that it generates, and real clips to compare with.

`run.py` shows the order of the steps. `comparison.py` chooses captions and real clips,
`generator.py` generates clips, and `evaluator.py` measures both. `groups.py` lists what can be
measured, and `metrics.py` says how each metric is shown.
"""
