"""Data subject requests: intake, verification, clocks, plan, settling, forgetting."""
