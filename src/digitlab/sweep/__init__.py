"""Many runs launched together: frozen in a manifest, searched, run, looked up again.

Must not know the command line; Hydra reaches it through hydra_bridge.py alone. Start with launch.py.
"""
