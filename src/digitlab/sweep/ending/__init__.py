"""How a sweep ends: when no further trial starts, and who is told.

Must not know executors or the search. Start with stop_rule.py.
"""
