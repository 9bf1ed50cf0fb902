"""The commands about all that is recorded: found, tagged, watched, removed, imported, delivered.

They hand over to api/ and tracking/; must not hold what Python's users need too. Start with listing.py.
"""
