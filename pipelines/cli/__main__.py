"""`python -m pipelines.cli`: the `ironmask` command."""

from pipelines.start import main

main()
