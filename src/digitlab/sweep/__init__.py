"""Many runs launched together: frozen in a manifest, searched, run, looked up again.

Must not import click or Hydra: overrides come as text. Start with launch.py.
"""
