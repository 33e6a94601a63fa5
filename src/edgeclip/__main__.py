"""`python -m edgeclip`."""

from edgeclip.cli.main import main

main()
