"""Where a training step and a prediction spend time and memory, by module."""
