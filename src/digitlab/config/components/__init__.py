"""What a user brings: models, optimizers, schedulers and data sets under names of their own.

They are registered in the project's models.py and data.py, or by installed packages. Must not know
torch, nor what a component computes. Start with lookup.py: `registered` names them all.
"""
