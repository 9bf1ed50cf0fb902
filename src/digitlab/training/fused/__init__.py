"""Many members of one architecture trained side by side, each to the same bits as alone.

Must not know sweeps. The models and the loop know nothing of it; a model without an architecture here
is trained by itself. Start with loop.py: `fit_many`.
"""
