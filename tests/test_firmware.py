"""What the firmware loads, and why not."""

import re

import numpy as np
import pytest

from keras_omv import arena, firmware, flatbuffer
from keras_omv.errors import UnsupportedModelError
from keras_omv.network import CUSTOM, Network, Op, Tensor

UNIT = {"padding": "SAME"} | dict.fromkeys(
    ("stride_h", "stride_w", "dilation_h", "dilation_w"), 1
)


def values(*shape, dtype="int8"):
    return Tensor("x", shape, dtype, np.ones(1, "f4"), np.zeros(1, "i8"))


def weights(*shape, dtype="int8", scales=1):
    data = np.zeros(shape, "u1" if dtype == "int4" else dtype)
    return Tensor("w", shape, dtype, np.ones(scales, "f4"), np.zeros(1, "i8"), 0, data)


def one_op(kind, source, *rest, options=None):
    """A network of one operation whose last tensor is its output."""
    tensors = (source, *rest)
    last = len(tensors) - 1
    op = Op(kind, tuple(range(last)), (last,), options or {})
    return Network(tensors, (op,), inputs=(0,), outputs=(last,))


def convolution(source_type, weights_type):
    return one_op(
        "CONV_2D",
        values(1, 8, 8, 3, dtype=source_type),
        weights(4, 3, 3, 3, dtype=weights_type),
        values(1, 8, 8, 4, dtype=source_type),
        options=UNIT,
    )


@pytest.mark.parametrize(
    ("release", "target", "count"),
    [
        ("5.0", None, 96 + 15),
        ("v4.5.6", "OPENMV_RT1060", 96 + 15),
        ("5.0.0", "OPENMV_AE3", 96 + 16),
        ("4.5.5", None, 38),
        ("4.5", "OPENMV4", 38),
        ("v4.5.5", "OPENMV_RT1060", 77),
    ],
)
def test_each_release_has_its_operators(release, target, count):
    assert len(firmware.firmware_operators(release, target)) == count


def test_what_this_package_writes_runs_on_every_tflm_release():
    assert firmware.firmware_operators("4.5.6") >= flatbuffer.WRITABLE


@pytest.mark.parametrize("release", ["", "five", "5", "5.0.0.1", "v5.x"])
def test_what_is_no_release_is_refused(release):
    message = (
        f"Expected a release such as '5.0' .* Received: {re.escape(repr(release))}"
    )
    with pytest.raises(ValueError, match=message):
        firmware.firmware_operators(release)


def test_a_release_without_a_list_is_refused():
    with pytest.raises(
        ValueError, match=r"Expected 4\.5\.0 or later\. Received: '4\.4"
    ):
        firmware.firmware_problems(convolution("int8", "int8"), firmware="4.4.3")


def test_a_sound_network_has_no_problem():
    problems = firmware.firmware_problems(convolution("int8", "int8"))
    assert problems == ()
    assert firmware.will_not_load(problems) == ""


def test_a_float_network_loads():
    assert firmware.firmware_problems(convolution("float32", "float32")) == ()


@pytest.mark.parametrize(
    ("source", "weight", "problem"),
    [
        ("float32", "int8", "takes float32 values with float32 weights, not int8"),
        ("uint8", "uint8", "takes float32 or int8 or int16, not uint8"),
    ],
)
def test_types_that_the_kernel_refuses_are_told(source, weight, problem):
    network = convolution(source, weight)
    assert firmware.firmware_problems(network) == (f"CONV_2D {problem}",)
    with pytest.raises(UnsupportedModelError, match="Expected CONV_2D on int8 or"):
        arena.plan(network)


def test_sixteen_bits_are_told():
    network = convolution("int16", "float32")
    assert firmware.firmware_problems(network) == (
        "CONV_2D takes int16 values with int8 weights, not float32",
        "input 'x' is int16: the camera gives images as int8 or uint8 or float32",
    )


def test_half_precision_weights_are_told():
    half = weights(4, dtype="float16")
    network = one_op("DEQUANTIZE", half, values(4, dtype="float32"))
    assert firmware.firmware_problems(network) == (
        "DEQUANTIZE takes int8 or int16 or uint8, not float16",
    )
    message = "one that will not load on the camera because DEQUANTIZE takes int8"
    with pytest.raises(UnsupportedModelError, match=message):
        arena.plan(network)


@pytest.mark.parametrize(("batch", "is_sound"), [(1, False), (4, True)])
def test_batches_left_out_of_a_shape_are_told(batch, is_sound):
    network = one_op(
        "SPACE_TO_BATCH_ND",
        values(1, 32, 32, 3),
        weights(2, dtype="int32"),
        weights(2, 2, dtype="int32"),
        values(batch, 18, 18, 3),
    )
    problems = firmware.firmware_problems(network)
    assert (problems == ()) == is_sound
    if not is_sound:
        assert "writes (1, 32, 32, 3) into (1, 18, 18, 3)" in problems[0]


def test_dense_weights_per_channel_are_told():
    network = one_op(
        "FULLY_CONNECTED", values(1, 8), weights(4, 8, scales=4), values(1, 4)
    )
    assert firmware.firmware_problems(network) == (
        "the dense weights 'w' are quantized per channel, which its TFLM refuses",
    )


def test_an_operator_of_another_release_is_told_once():
    network = one_op("ELU", values(1, 8), values(1, 8))
    twice = Network(network.tensors, network.ops * 2, (0,), (1,))
    assert firmware.firmware_problems(twice) == ()
    problems = firmware.firmware_problems(twice, firmware="4.5.5")
    assert problems == ("firmware 4.5.5 has no operator ELU",)
    assert firmware.will_not_load(problems) == (
        "will not load on the camera because firmware 4.5.5 has no operator ELU"
    )
    rt1062 = {"firmware": "4.5.5", "target": "OPENMV_RT1060"}
    assert firmware.firmware_problems(twice, **rt1062) == ()


def test_a_file_compiled_for_an_accelerator_runs_there_alone():
    network = one_op(CUSTOM + "ethos-u", values(1, 8), values(1, 8))
    (problem,) = firmware.firmware_problems(network)
    assert problem.startswith("it is compiled for an Ethos-U accelerator")
    assert firmware.firmware_problems(network, target="OPENMV_AE3") == ()


def test_more_than_one_image_is_told():
    network = one_op("RELU", values(8, 4, 4, 3), values(8, 4, 4, 3))
    assert firmware.firmware_problems(network) == ("input 'x' holds 8 images, not one",)
