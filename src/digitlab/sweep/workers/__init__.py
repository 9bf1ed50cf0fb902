"""Worker processes of which any may die, and what they do with trials and chunks.

Must not know what a sweep searches for. Start with runner.py (hands out), then trial.py (is handed).
"""
