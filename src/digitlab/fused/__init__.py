"""Many members of one architecture trained side by side, each to the same bits as alone.

A room of its own: the models and the loop know nothing of it, and a model without a form here is
trained by itself.
"""
