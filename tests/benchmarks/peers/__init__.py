"""digitlab against what a careful user picks instead, in one run: `make bench-peers`.

Start with contestants.py. The peers themselves are scripts/, which know nothing of digitlab.
"""
