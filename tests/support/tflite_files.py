"""Small TensorFlow Lite files, made by TensorFlow's own converter, and any field of them changed."""

import functools

import numpy as np

from ehdnas.exporters.tflite.exporter import load_tensorflow
from ehdnas.exporters.tflite.schema import load_schema


def weights(*shape):
    return np.random.default_rng(1).normal(0, 0.5, shape).astype(np.float32)


@functools.cache
def convert(network, shape=(1, 8, 8, 4), precision="int8"):
    """Return the file of `network`, a function of (tf, image), int8 from end to end unless `precision` is
    fp32, or `float ends`: int8 inside with float inputs and outputs."""
    tf = load_tensorflow()
    image = tf.TensorSpec(shape, tf.float32, name="input")
    function = tf.function(lambda image: network(tf, image), input_signature=[image], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], tf.Module()
    )
    if precision != "fp32":
        images = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if precision == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def edited(data, change):
    """Return the file after `change` has had its unpacked model."""
    import flatbuffers

    model = load_schema().ModelT.InitFromPackedBuf(data, 0)
    change(model)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def classifier(tf, image):
    """Return the logits of a network of which everything maps on an Edge TPU."""
    image = tf.nn.relu(tf.nn.conv2d(image, weights(3, 3, 4, 8), 2, "SAME") + weights(8))
    image = tf.nn.depthwise_conv2d(image, weights(3, 3, 8, 1), (1, 1, 1, 1), "SAME")
    image = tf.concat([image, tf.nn.max_pool2d(image, 3, 1, "SAME")], 3)
    return tf.nn.softmax(tf.reduce_mean(image, (1, 2)) @ weights(16, 10))
