"""A model as a picture: nested boxes of modules, the operations that matter, and shapes on the edges."""

from torchgraft.graph.draw import draw, drawing, written
from torchgraft.graph.drawing import Box, Drawing, Edge

__all__ = ["Box", "Drawing", "Edge", "draw", "drawing", "written"]
