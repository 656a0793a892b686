"""Stores videos as encoded shots, and cuts clips out of the shots when they are read.

`layout` names the files of a set of shots. `codecs` stores pictures. `records` stores one shot.
`slots` computes which clips a set of shots gives. `source` reads the clips, and `states` the text
states of their captions. `stunet.prepare` writes all of it.
"""
