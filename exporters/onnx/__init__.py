"""ONNX: fp32 and int8 (QDQ) files."""
