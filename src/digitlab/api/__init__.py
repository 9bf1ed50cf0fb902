"""What digitlab does, as functions that return what came of it: `import digitlab`, and the commands.

Must not know click, end the process, or take over its signal handlers; only the command line is above
it. Start with training.py.
"""
