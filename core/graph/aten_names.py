"""The names of the ATen operators that need nothing but a name to have a row, or to have none."""

from __future__ import annotations

# What changes where the next operator reads, or nothing at all.
FREE = frozenset(
    (
        "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "permute",
        "transpose", "t", "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind",
        "getitem", "expand", "expand_as", "repeat", "movedim", "swapaxes", "roll", "flip", "pixel_shuffle",
        "pixel_unshuffle", "channel_shuffle", "pad", "constant_pad_nd",
    )
)  # fmt: skip
# What hands its first argument on as it is.
IDENTITIES = frozenset(
    (
        "dropout", "feature_dropout", "alpha_dropout", "clone", "contiguous", "detach", "alias",
        "lift_fresh_copy", "to", "_to_copy", "type_as", "_assert_tensor_metadata",
    )
)  # fmt: skip
ELEMENTWISE = {
    **dict.fromkeys(("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "clip"), "relu"),
    **dict.fromkeys(
        (
            "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "hardswish",
            "hardsigmoid", "tanh", "softplus", "log_sigmoid", "exp", "log", "sqrt", "rsqrt", "pow", "square",
            "abs", "neg", "erf", "reciprocal", "sin", "cos",
        ),
        "activation",
    ),
    **dict.fromkeys(("add", "sub", "rsub", "maximum", "minimum"), "add"),
    **dict.fromkeys(("mul", "div"), "mul"),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), "softmax"),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm"), "norm"),
    **dict.fromkeys(("cat", "concat", "stack"), "concat"),
}  # fmt: skip
NORMS = frozenset({"batch_norm", "_native_batch_norm_legit_no_training"})
