"""Random small networks and boards, for properties that hold for all of them."""

from hypothesis import strategies as st

from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.boards import Board

CHANNELS = st.sampled_from([3, 8, 12, 16, 24, 32, 48, 64])


@st.composite
def networks(draw, most=6):
    """A chain of convolutions, depthwise ones, pools, additions and perhaps a classifier."""
    size, channels = draw(st.sampled_from([8, 14, 32, 56])), draw(CHANNELS)
    layers = []
    for at in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(["conv", "depthwise", "pool", "add"]))
        out = draw(CHANNELS) if kind == "conv" else channels
        kernel = 1 if kind == "add" else draw(st.sampled_from([1, 3, 5]))
        window = {"kernel": (kernel, kernel), "padding": (kernel // 2, kernel // 2)} if kind != "add" else {}
        groups = channels if kind == "depthwise" else 1
        operator = {"pool": "max_pool", "add": "add"}.get(kind, "conv")
        layers.append(Layer(f"{kind}{at}", operator, channels, out, size, size, **window, groups=groups))
        channels = out
    if draw(st.booleans()):
        layers.append(Layer("pool", "global_pool", channels, channels, size, size, (size, size)))
        layers.append(Layer("classifier", "linear", channels, 10, 1, 1))
    return LayerTable(tuple(layers))


BOARDS = st.builds(
    Board,
    dsp=st.integers(20, 6000),
    bram18=st.integers(40, 4000),
    lut=st.integers(20_000, 1_500_000),
    ddr_gbps=st.floats(0.5, 80),
)
