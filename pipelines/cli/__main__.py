"""`python -m pipelines.cli`: the `ironmask` command."""

from pipelines.cli import main

main()
