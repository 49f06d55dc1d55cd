"""What every domain stands on: settings, databases, clock, ids, errors, logs, pages."""
