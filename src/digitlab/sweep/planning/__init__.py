"""From a command line and conf/sweep/ to a manifest's trials, to chunks of them, and their time.

Must not run anything. Torch is loaded only to give a reason (forecast.py). Start with plan.py.
"""
