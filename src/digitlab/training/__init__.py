"""What decides the numbers: the loop, optimizers, schedules, evaluation, arithmetic, devices.

Must not know run folders, stores or commands: its caller iterates over the loop, logs, saves, stops.
Start with loop.py: `fit`.
"""
