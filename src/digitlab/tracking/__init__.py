"""A run's folder on this disk, and its way into an MLflow store and back.

The only room that imports MLflow, and only inside functions and classes; must not import torch
outside models in MLflow's format. Start with run_folder.py, then delivery.py.
"""
