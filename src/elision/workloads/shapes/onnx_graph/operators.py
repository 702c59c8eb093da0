"""The operators that are read, and those that multiply and are not."""

from collections.abc import Callable

from elision.workloads.shapes.onnx_graph.contractions import einsum, gemm, matmul
from elision.workloads.shapes.onnx_graph.convolutions import (
    convolution,
    transposed_convolution,
)
from elision.workloads.shapes.onnx_graph.operation import Operation, Products
from elision.workloads.shapes.onnx_graph.sequences import attention, recurrent

__all__ = ["READERS", "UNREAD"]

#: Readers by operator of ONNX's own domain.
READERS: dict[str, Callable[[Operation], Products]] = {
    "Attention": attention,
    "Conv": convolution(1),
    "ConvInteger": convolution(1),
    "ConvTranspose": transposed_convolution,
    "Einsum": einsum,
    "GRU": recurrent(3),
    "Gemm": gemm,
    "LSTM": recurrent(4),
    "MatMul": matmul(1),
    "MatMulInteger": matmul(1),
    "QLinearConv": convolution(3),
    "QLinearMatMul": matmul(3),
    "RNN": recurrent(1),
}

#: Operators, by domain, that multiply and are not read. What is left of these domains
#: moves values or treats each by itself; operators of other domains are never read.
UNREAD: dict[str, frozenset[str]] = {
    "": frozenset(
        {
            *("AffineGrid", "CausalConvWithState", "DFT", "DeformConv", "Det"),
            *("LinearAttention", "MelWeightMatrix", "STFT", "SequenceMap"),
        }
    ),
    "ai.onnx.ml": frozenset(
        {"LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"}
    ),
}
