"""`make bench`: what the work costs, as ratios measured side by side in one run."""
