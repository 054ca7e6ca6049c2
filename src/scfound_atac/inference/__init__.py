"""What each kind of model does with cells: embed them, impute them, read them for a head.

`kinds.py` is the table of kinds; each has one file here. These are innards: `scfound_atac.tl` and `scfound_atac.model` are for users.
"""
