"""Fixes where no edited place explains the fault: each file proposes edits for one kind of cause."""
