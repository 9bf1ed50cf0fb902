"""What decides the numbers: the loop, optimizers, schedules, evaluation, arithmetic, devices.

Must not know run folders, stores or commands: whoever iterates over the loop logs, saves or stops.
Start with loop.py: `fit`.
"""
