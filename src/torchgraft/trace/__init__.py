"""One forward pass on fake tensors, recorded: calls, operations, shapes, makers, parameters, MACs."""

from torchgraft.trace.layers import input_layers, output_layers
from torchgraft.trace.record import Call, Mismatch, Op, Trace, Value
from torchgraft.trace.run import Tracer, arriving, doubled, outputs, trace

__all__ = [
    "Call",
    "Mismatch",
    "Op",
    "Trace",
    "Tracer",
    "Value",
    "arriving",
    "doubled",
    "input_layers",
    "output_layers",
    "outputs",
    "trace",
]
