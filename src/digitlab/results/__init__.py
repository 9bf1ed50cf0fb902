"""What came of runs: estimates, tables, curves and figures of finished trials.

Must not start a run nor know how trials were planned. Start with trial_result.py and summary.py.
"""
