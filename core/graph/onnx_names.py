"""The names of the ONNX operators that need nothing but a name to have a row, or to have none."""

from __future__ import annotations

# What changes where the next operator reads, or nothing at all.
FREE = frozenset(
    (
        "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Expand",
        "Tile", "DepthToSpace", "SpaceToDepth", "Pad",
    )
)  # fmt: skip
# What hands its first argument on as it is, but for its number format.
IDENTITIES = frozenset({"Identity", "Dropout", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"})
ELEMENTWISE = {
    **dict.fromkeys(("Relu", "Clip"), "relu"),
    **dict.fromkeys(
        (
            "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "Gelu", "Mish", "Swish",
            "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Erf", "Exp", "Log",
            "Sqrt", "Pow", "Abs", "Neg", "Reciprocal", "Sin", "Cos",
        ),
        "activation",
    ),
    **dict.fromkeys(("Add", "Sub", "Sum", "Max", "Min"), "add"),
    **dict.fromkeys(("Mul", "Div"), "mul"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "softmax"),
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization", "LRN"),
        "norm",
    ),
    "Concat": "concat",
}  # fmt: skip
# Where among its inputs a weighted operator has the second factor of its products.
FACTOR = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "ConvInteger": 1, "MatMulInteger": 1,
    "QLinearConv": 3, "QLinearMatMul": 3,
}  # fmt: skip
