"""What OpenMV's firmware loads: its operators per release, and the types they take.

A camera says "Failed to allocate tensors" and no more: its TFLM is built without
messages. `load_violations` says why, beforehand; `keras_omv.rules` adds what loads
and then hangs or answers wrongly.

Versions of operators are no rule: TFLM looks an operator up by its code alone
(tensorflow/tflite-micro at a57349f0, lite/micro/micro_op_resolver.cc). What a newer
version can stand for are types, shapes and scales, which are judged.
"""

import dataclasses
import functools
import math
import re
from typing import Literal

from keras_omv.network import CUSTOM, WEIGHTED_OPS, Network, Op, Tensor

# openmv lib/tflm/tflm_backend.cc@v5.0.0:111-234, the same from 4.5.6 on.
_TFLM = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D
COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL
EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX RELU
RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SELECT_V2 SHAPE SIN
SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
_TFLM_CUSTOM = """
CIRCULAR_BUFFER SignalDelay SignalEnergy SignalFftAutoScale SignalFilterBank
SignalFilterBankLog SignalFilterBankSpectralSubtraction SignalFilterBankSquareRoot
SignalFramer SignalIrfft SignalOverlapAdd SignalPCAN SignalRfft SignalStacker
SignalWindow
"""
# openmv/tensorflow-lib libtf.cc@9f20a69:55-141, releases 4.5.0 to 4.5.5.
_LIBTF = """
ABS ADD ADD_N ARG_MIN AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE
EXP FLOOR FULLY_CONNECTED LEAKY_RELU LESS LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL
NOT_EQUAL PACK PAD PADV2 QUANTIZE RELU RELU6 RESHAPE RESIZE_NEAREST_NEIGHBOR SHAPE
SOFTMAX SQRT STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV UNPACK
"""
# The same file, :143-229, which boards/OPENMV_RT1060/imlib_config.h:123@v4.5.5 chooses.
_LIBTF_RT1060 = """
ARG_MAX BATCH_MATMUL BATCH_TO_SPACE_ND CAST CEIL COMPLEX_ABS COS DIV ELU EQUAL
EXPAND_DIMS GREATER GREATER_EQUAL HARD_SWISH IMAG L2_NORMALIZATION L2_POOL_2D LESS_EQUAL
LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR NEG PRELU REAL REDUCE_MAX REDUCE_MIN ROUND RSQRT
SIN SPACE_TO_BATCH_ND SPLIT SPLIT_V SQUARE SQUARED_DIFFERENCE SQUEEZE SUM SVDF
ZEROS_LIKE
"""
_NPU_OPERATOR = CUSTOM + "ethos-u"
_NPU_TARGETS = ("OPENMV_AE3", "MPS3_AN547")
_FIRST_TFLM = (4, 5, 6)
AGAIN = "convert the Keras model again with omv.export"
"""The remedy where only another conversion helps."""

# tensorflow/tflite-micro at a57349f0, lite/micro/kernels: what Prepare or Eval of each
# takes as its first input, of the types that converters write.
_BASIC = ("float32", "int8", "int16")
_TYPES = {
    **dict.fromkeys(("ADD", "MUL"), (*_BASIC, "int32")),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "LOGISTIC", "TANH"), _BASIC),
    **dict.fromkeys(WEIGHTED_OPS, _BASIC),
    **dict.fromkeys(("LEAKY_RELU", "MEAN", "SOFTMAX", "SUB", "SUM"), _BASIC),
    **dict.fromkeys(("HARD_SWISH", "PRELU", "REDUCE_MAX"), ("float32", "int8")),
    **dict.fromkeys(("RELU", "RELU6", "RESIZE_BILINEAR"), ("float32", "int8")),
    "DEQUANTIZE": ("int8", "int16", "uint8"),
}
_IMAGE_TYPES = ("int8", "uint8", "float32")
_WEIGHT_TYPES = {
    "float32": ("float32",),
    "int8": ("int8", "int4"),
    "int16": ("int8",),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """One thing that keeps a camera from running a model as it should.

    Attributes:
        rule: The rule's short name, such as `"operators"`.
        what: What is wrong, naming the tensor or the operator.
        remedy: What to do about it; `""` where `what` says it.
        severity: `"error"` where the camera refuses the model, hangs or answers
            wrongly; `"warning"` where it runs, but not as well as it could.
    """

    rule: str
    what: str
    remedy: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


@functools.cache
def firmware_operators(
    firmware: str = "5.0", target: str | None = None
) -> frozenset[str]:
    """Return the operators that a release registers, as in `Op.kind`.

    Args:
        firmware: The release, such as `"5.0"` or `"v4.5.5"`; 4.5.0 or later.
        target: The firmware's name of the camera, such as `"OPENMV4P"`. Defaults to
            `None`, what all cameras have.

    Raises:
        ValueError: For a release that is older or is no release.
    """
    if release(firmware) < _FIRST_TFLM:
        more = _LIBTF_RT1060 if target == "OPENMV_RT1060" else ""
        return frozenset((_LIBTF + more).split())
    custom = frozenset(CUSTOM + name for name in _TFLM_CUSTOM.split())
    npu = {_NPU_OPERATOR} if target in _NPU_TARGETS else set()
    return frozenset(_TFLM.split()) | custom | npu


def firmware_problems(
    network: Network, *, firmware: str = "5.0", target: str | None = None
) -> tuple[str, ...]:
    """Say why a camera will not load a network, or will not run it as it should.

    Args:
        network: The network, most usefully as it was read from a file.
        firmware: The release, such as `"5.0"` or `"v4.5.5"`; 4.5.0 or later.
        target: The firmware's name of the camera. Defaults to `None`, any camera.

    Returns:
        A reason each; empty where none is known. Memory is not judged here.

    Raises:
        ValueError: For a release that is older or is no release.
    """
    found = load_violations(network, firmware=firmware, target=target)
    return tuple(violation.what for violation in found)


def load_violations(
    network: Network, *, firmware: str = "5.0", target: str | None = None
) -> tuple[Violation, ...]:
    """Find what keeps a camera from loading a network, each once.

    Args:
        network: As in `firmware_problems`, which tells the same as text.
        firmware: As there.
        target: As there.

    Raises:
        ValueError: For a release that is older or is no release.
    """
    known = firmware_operators(firmware, target)
    found = [Violation("file", problem) for problem in network.file_problems]
    for op in network.ops:
        found += _op_violations(network, op, known, firmware)
    for index in network.inputs:
        found += _input_violations(network.tensors[index])
    return tuple(dict.fromkeys(found))


def will_not_load(problems: tuple[str, ...]) -> str:
    """Return the reasons of `firmware_problems` as one sentence, empty for none."""
    if not problems:
        return ""
    return f"will not load on the camera because {'; '.join(problems)}"


def release(firmware: str) -> tuple[int, ...]:
    """Return a release as three numbers, which compare.

    Args:
        firmware: The release, such as `"5.0"` or `"v4.5.5"`.

    Raises:
        ValueError: For one that is older than 4.5.0, or is no release.
    """
    if not re.fullmatch(r"v?\d+(\.\d+){1,2}", firmware):
        raise ValueError(
            f"Unknown firmware. Expected a release such as '5.0' or 'v4.8.1'. "
            f"Received: {firmware!r}. Next step: `keras-omv boards` lists them."
        )
    numbers = tuple(map(int, firmware.removeprefix("v").split(".")))
    numbers += (0,) * (3 - len(numbers))
    if numbers < (4, 5, 0):
        raise ValueError(
            f"Unknown firmware. Expected 4.5.0 or later. Received: {firmware!r}. Next "
            f"step: update the camera."
        )
    return numbers


def _op_violations(
    network: Network, op: Op, known: frozenset[str], firmware: str
) -> list[Violation]:
    if op.kind == _NPU_OPERATOR and op.kind not in known:
        what = "it is compiled for an Ethos-U accelerator, which this camera lacks"
        return [Violation("operators", what, "take the file before it was compiled")]
    if op.kind not in known:
        what = f"firmware {firmware} has no operator {op.kind}"
        return [Violation("operators", what, "replace the layer it comes from")]
    inputs = [network.tensors[index] for index in op.inputs if index >= 0]
    if not inputs:
        return []
    found = [*_type_violations(op.kind, inputs[0]), *_size_violations(network, op)]
    if op.kind in WEIGHTED_OPS and len(inputs) > 1:
        found += _weights_violations(op.kind, inputs[0], inputs[1])
    return found


def _type_violations(kind: str, source: Tensor) -> list[Violation]:
    allowed = _TYPES.get(kind)
    if allowed is None or source.dtype in allowed:
        return []
    what = f"{kind} takes {' or '.join(allowed)}, not {source.dtype}"
    return [Violation("types", what, AGAIN)]


def _weights_violations(kind: str, source: Tensor, weights: Tensor) -> list[Violation]:
    allowed = _WEIGHT_TYPES.get(source.dtype, (weights.dtype,))
    if weights.dtype not in allowed:
        what = (
            f"{kind} takes {source.dtype} values with {' or '.join(allowed)} weights, "
            f"not {weights.dtype}"
        )
        return [Violation("types", what, AGAIN)]
    if kind != "FULLY_CONNECTED" or weights.scales.size < 2:
        return []
    what = (
        f"the dense weights {weights.name!r} are quantized per channel, which its "
        f"TFLM refuses"
    )
    remedy = (
        "set the converter's "
        "_experimental_disable_per_channel_quantization_for_dense_layers, or use "
        "omv.export"
    )
    return [Violation("per-channel dense", what, remedy)]


def _size_violations(network: Network, op: Op) -> list[Violation]:
    """Find batches that a file with an open batch size leaves out of its shapes.

    TFLM believes the shapes and writes behind the tensor.
    """
    if op.kind != "SPACE_TO_BATCH_ND" or not op.outputs:
        return []
    source, result = (network.tensors[i].shape for i in (op.inputs[0], op.outputs[0]))
    if math.prod(result) >= math.prod(source):
        return []
    what = (
        f"SPACE_TO_BATCH_ND writes {source} into {result}, which is smaller: convert "
        f"with a batch size of 1"
    )
    return [Violation("shapes", what)]


def _input_violations(source: Tensor) -> list[Violation]:
    """Judge an input that looks like images (src/omv/modules/py_image.c:612-788)."""
    if len(source.shape) != 4:
        return []
    if source.shape[0] != 1:
        what = f"input {source.name!r} holds {source.shape[0]} images, not one"
        return [Violation("input", what, "convert with a batch size of 1")]
    if source.dtype in _IMAGE_TYPES:
        return []
    what = (
        f"input {source.name!r} is {source.dtype}: the camera gives images as "
        f"{' or '.join(_IMAGE_TYPES)}"
    )
    return [Violation("input", what, AGAIN)]
