"""How a sweep ends before all of its trials were started.

Must not know executors or the search. Start with stop_rule.py.
"""
