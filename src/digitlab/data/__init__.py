"""Data sets as tensors in memory: their files, checked to the byte, and their splits.

Must not know models, training or runs. Start with splits.py: `load` makes a `Dataset`.
"""
