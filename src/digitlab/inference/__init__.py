"""A trained model at work: pictures read, models promoted, served as a page, exported.

Must not train; only promote.py writes to the store. Start with trained_model.py (which
is meant), then predict.py.
"""
