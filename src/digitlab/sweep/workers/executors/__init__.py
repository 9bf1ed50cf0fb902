"""Where the tasks of a sweep run: a file for each executor, found by the name in its settings.

Must not know what a task does, nor the journal. Start with executor.py, which says what an executor
is; table.py names all of them.
"""
