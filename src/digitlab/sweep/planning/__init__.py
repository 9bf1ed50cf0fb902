"""From a command line and conf/sweep/ to a manifest's trials, and to chunks of them.

Must not run anything nor import torch. Start with plan.py.
"""
