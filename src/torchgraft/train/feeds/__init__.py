"""Feeds by what the samples come from: a set with places, a stream, a loader of the user's own."""
