"""Who must not be processed again, and how a caller asks."""
