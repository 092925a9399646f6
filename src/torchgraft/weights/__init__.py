"""Weights from anywhere: files read without running code, checkpoints unwrapped, names matched with a model's."""
