"""Turns videos and captions into a set of shots, from which training cuts clips.

`run.py` shows the order of the steps. `inputs.py` finds the videos and their captions, `parts.py`
divides them into parts, and `engines.py` runs the work on parts in several processes. `shots.py`
cuts a video into shots, `shards.py` writes the shots of a part, and `texts.py` encodes the
captions.
"""
