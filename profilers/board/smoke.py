"""Two tiny models, y = relu(x) on eight floats, that show whether an interpreter works at all."""

from __future__ import annotations

import base64
import zlib

_PACKED = {
    ".onnx": ("eNrjYBdisLLm4uFirBBirFRiCUrNKRViTI8SBgnwcfFwMApxcDFxMAIxRxJQsBJd0ImFi0GAFwBDBAde"),
    ".tflite": (
        "eNptUT1PAkEUnJMTCV4QAzEUFCRSXwSxsyGIkYQPg0TtkIQrruBI8DSa+CusLS0t7O0t/A0m/gULCyvP2d13F6O+y+T2ze6b"
        "t/O2DGC0390uooIySigiD4dcBjbXIGcQElULaBC7S0AKJrhEg7CJ1yiKbFkXiNagf9weHnUG/XGvPWruNUdN6jpaOwOjEZ+d"
        "+cF4cRGE/swbX3qLc38eYJn8A3FP3BE3cv5W+pwReblHBrlEV3FVzaY1l5Y6FU7i0dY+nyYvJ+v+5ltKvNi6Cqi79Zq79VdD"
        "adfcHbMl8f4VRR/EJ7HGvNftDCuteUAfoTd1wZHpWYJ3jLsrzZzwar4HRJc4lD6ziR+oCivxmE3eJav/0Ln1A/gnV55ORfOZ"
        "c1NbedFUeyXikbzS60w9PkB4HddZ0gfY0PeG3NzEClnTsig+Yp+2/kx+9Usr9uPwW9Xl5h0KRqvwDZvERHU="
    ),
}


def smoke_model(suffix: str) -> bytes:
    """Return the bytes of the smoke-test model for `.tflite` or `.onnx`."""
    return zlib.decompress(base64.b64decode(_PACKED[suffix]))
