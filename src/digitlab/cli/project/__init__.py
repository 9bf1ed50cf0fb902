"""A project of one's own: what it begins with, and what an editor is told of its conf/.

It imports nothing slow, and nothing of runs. Start with commands.py.
"""
