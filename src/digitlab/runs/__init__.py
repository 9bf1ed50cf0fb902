"""One run, from a configuration to its record: described, trained, tested, saved, drawn.

Must not know sweeps, comparisons or commands. Start with experiment.py: `run_experiment`; record.json
is document.py, the end of a run is ending.py.
"""
