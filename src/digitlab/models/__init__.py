"""The models, one file each: images in, logits out; how they are built, saved and asked.

Must not know losses, optimizers or runs. Start with build.py: `build_model` names them all.
"""
