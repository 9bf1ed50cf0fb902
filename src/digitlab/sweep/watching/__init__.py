"""A sweep looked at while it runs, from any terminal or machine.

Must not touch what it looks at. Start with snapshot.py.
"""
