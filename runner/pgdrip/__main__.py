"""`python -m pgdrip`, the same as `pgdrip`."""

from pgdrip.cli import main

main()
