"""TensorFlow Lite: fp32, fp16 and int8 files, and what such a file says."""
