"""Many runs launched together: frozen in a manifest, searched, run, looked up again.

Must not know the command line, nor Hydra. Start with launch.py.
"""
