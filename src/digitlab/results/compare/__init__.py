"""Which runs are better, and whether it is real.

Must not look runs up by a user's words (sweep/lookup.py does) nor know the report. Start with
compare.py.
"""
