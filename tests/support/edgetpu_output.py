"""The Edge TPU compiler's output and operation logs, printed as version 16 prints them."""

MAPPED = "Mapped to Edge TPU"
STATUSES = [
    "More than one subgraph is not supported",
    "Operation not supported",
    "Operation version not supported",
    "Operation is working on an unsupported data type",
    "Operation is otherwise supported, but not mapped due to some unspecified limitation",
    "Tensor has unsupported rank",
    "Filter, bias, or other param is not constant at compile-time",
]
ROWS = [
    ("ADD", 3, MAPPED),
    ("CONV_2D", 136, MAPPED),
    ("MEAN", 1, STATUSES[0]),
    ("CONV_2D", 2, STATUSES[0]),
    ("FULLY_CONNECTED", 1, STATUSES[3]),
]
HEAD = "Edge TPU Compiler version 16.0.384591198\n"
TIMER = "Started a compilation timeout timer of 180 seconds.\n"
DONE = "Compilation child process completed within timeout period.\n"


def table(rows):
    lines = [f"{operator:<31}{count:<11}{status}\n" for operator, count, status in rows]
    return "".join([f"{'Operator':<31}{'Count':<11}Status\n\n", *lines])


def block(
    name="net_int8", rows=ROWS, sizes=("6.00MiB", "6.11MiB", "5.90MiB", "1.16MiB", "41.75KiB"), shown=True
):
    tpu = sum(count for _, count, status in rows if status == MAPPED)
    cpu = sum(count for _, count, _ in rows) - tpu
    text = (
        f"Input model: {name}.tflite\nInput size: {sizes[0]}\n"
        f"Output model: {name}_edgetpu.tflite\nOutput size: {sizes[1]}\n"
        f"On-chip memory used for caching model parameters: {sizes[2]}\n"
        f"On-chip memory remaining for caching model parameters: {sizes[3]}\n"
        f"Off-chip memory used for streaming uncached model parameters: {sizes[4]}\n"
        f"Number of Edge TPU subgraphs: 1\nTotal number of operations: {tpu + cpu}\n"
        f"Operation log: {name}_edgetpu.log\n"
    )
    if cpu:
        text += (
            "\nModel successfully compiled but not all operations are supported by the Edge TPU. A "
            "percentage of the model will instead run on the CPU, which is slower.\n"
            f"Number of operations that will run on Edge TPU: {tpu}\n"
            f"Number of operations that will run on CPU: {cpu}\n"
        )
    return text + (
        "\n" + table(rows) if shown else "See the operation log file for individual operation details.\n"
    )


def compiled(*blocks, compile_ms=1135):
    model = "Model" if len(blocks) == 1 else "Models"
    body = "\n".join(blocks)
    return (
        f"{TIMER}\n{model} compiled successfully in {compile_ms} ms.\n\n{body}{DONE}Compilation succeeded! \n"
    )


def log_file(name="net_int8", rows=ROWS):
    return f"{HEAD}Input: {name}.tflite\nOutput: {name}_edgetpu.tflite\n\n{table(rows)}"
