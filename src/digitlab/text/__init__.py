"""Text from outside and to the outside: files, lines of JSON, YAML, addresses, the terminal.

At the bottom because every other room reads or says something. Must not know what a text is about:
no configuration, no run. Start with files.py (reading within a bound) and terminal.py (showing).
"""
