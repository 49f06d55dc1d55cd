"""Who may do what: workspaces, operators, sessions, API keys, rate limits, audit."""
