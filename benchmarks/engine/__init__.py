"""How fast, fair and frugal the delivery engine is, as ratios measured in one run."""
