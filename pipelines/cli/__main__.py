"""`python -m pipelines.cli`: the `ironmask` command."""

from pipelines.cli import main
from pipelines.run import stop

stop.guarded(main)
