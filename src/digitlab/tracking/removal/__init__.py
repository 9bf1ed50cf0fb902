"""Runs removed from a store, brought back or purged, and the room that all of it takes.

Must not know why a run may go. Start with trash.py.
"""
