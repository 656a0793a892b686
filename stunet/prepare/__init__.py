"""Turns a folder of videos and captions into clip records that training reads.

`run.py` shows the order of the steps: `captions.py` finds the videos and their captions,
`cutting.py` and `decode.py` cut the videos into clips, and `writing.py` writes the records.
"""
