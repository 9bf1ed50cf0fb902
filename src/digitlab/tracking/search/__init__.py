"""Which recorded runs are meant, and what their users say of them.

Must not know how a store is reached, nor what is compared. Start with run_filter.py.
"""
