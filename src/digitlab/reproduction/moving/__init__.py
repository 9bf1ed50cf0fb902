"""Runs handed from one store to another: described, several in one file, imported.

Must not know what is shown to a user. Start with importing.py.
"""
