"""Forms in which users have data of their own, one file each: a function that gives an ImageData.

Must not know the schema, torch or runs. Start with npz.py, the shortest; data/checks.py judges what
they give.
"""
