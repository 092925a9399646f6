"""A model as a picture: nested boxes of modules, the operations that matter, and shapes on the edges."""

from torchgraft.graph.draw import draw, drawing
from torchgraft.graph.drawing import Box, Drawing, Edge
from torchgraft.graph.files import written

__all__ = ["Box", "Drawing", "Edge", "draw", "drawing", "written"]
