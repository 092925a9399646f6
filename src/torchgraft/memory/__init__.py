"""The memory that training takes, predicted without running it."""
