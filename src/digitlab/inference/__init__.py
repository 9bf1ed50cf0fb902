"""A trained model at work: pictures read, models promoted, served as a page, exported.

Must not train or record anything. Start with trained_model.py (which is meant), then predict.py.
"""
