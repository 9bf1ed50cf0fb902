"""`python -m digitlab.cli`."""

from digitlab.cli import main

main()
