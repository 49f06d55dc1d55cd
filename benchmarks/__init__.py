"""Programs that measure and print ratios; nothing here is a test."""
