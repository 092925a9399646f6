"""Parameters: groups for the optimizer, and what frozen means."""
