"""A run's folder on this disk, and its way into an MLflow store and back.

The only room that uses MLflow, imported inside functions but for two programs (served_model.py,
connection/ui_server.py); must not import torch outside models in MLflow's format. Start with
run_folder.py, then delivery.py.
"""
