"""The tracking store: the only package that imports mlflow, and only inside functions and classes."""
