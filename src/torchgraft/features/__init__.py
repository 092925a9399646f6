"""What a model sees: tensors captured on their way, and pictures of them."""
