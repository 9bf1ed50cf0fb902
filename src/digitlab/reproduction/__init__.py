"""A recorded run again: resumed where it was cut short, or repeated and judged.

Must not know sweeps or read conf/: the record says everything. Start with reproduce.py; verdict.py
judges.
"""
