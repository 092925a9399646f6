"""Probes: each looks at one thing, by itself, and gives a record. Rules read the records; none judges here."""
