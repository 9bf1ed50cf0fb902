"""What may be asked for: the schema, Hydra's composition, and what of it decides a result.

Must not know how anything is trained or recorded, nor import torch or MLflow; Hydra is known to
conf_folder.py, composition.py and overrides.py alone. Start with schema.py: every knob, its meaning.
"""
