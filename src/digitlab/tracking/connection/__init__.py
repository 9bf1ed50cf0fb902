"""How an MLflow store is reached: which one, whether it answers, its client and its errors.

Must not know run folders. Start with location.py (which store is meant), then client.py.
"""
