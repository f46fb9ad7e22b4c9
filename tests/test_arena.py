"""TFLM's memory, against what the firmware reported."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_omv import arena, flatbuffer
from keras_omv.errors import UnsupportedModelError
from keras_omv.network import Network, Op, Tensor

DATA = Path(__file__).parent / "data" / "device-ram"
MEASURED = json.loads((DATA / "device-ram.json").read_text())["models"]
ON_M55 = [name for name in MEASURED if "device_ram_bytes_m55" in MEASURED[name]]
UNIT = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}


def read(name):
    return flatbuffer.read((DATA / name).read_bytes())


def activation(*shape, name=""):
    return Tensor(name, (1, *shape), "int8", np.ones(1, "f4"), np.zeros(1, "i8"))


def weights(*shape, channels=1):
    scales, zero_points = np.ones(channels, "f4"), np.zeros(channels, "i8")
    return Tensor("w", shape, "int8", scales, zero_points, data=np.zeros(shape, "i1"))


def convolution(kernel, source, result, *, kind="CONV_2D", **options):
    tensors = (activation(*source), weights(*kernel), activation(*result))
    op = Op(kind, (0, 1, -1), (2,), {"padding": "SAME", **UNIT, **options})
    return Network(tensors, (op,), inputs=(0,), outputs=(2,))


def scratch_bytes(network, core="cortex-m7"):
    buffers = arena.plan(network, core).buffers
    return [buffer.size_bytes for buffer in buffers if buffer.is_scratch]


@pytest.mark.parametrize("name", MEASURED)
def test_ram_matches_firmware_on_every_reference_model(name):
    assert arena.plan(read(name)).ram_bytes == MEASURED[name]["device_ram_bytes"]


@pytest.mark.parametrize("name", ON_M55)
def test_ram_matches_firmware_on_cortex_m55(name):
    plan = arena.plan(read(name), core="cortex-m55")
    assert plan.ram_bytes == MEASURED[name]["device_ram_bytes_m55"]


@pytest.mark.parametrize("name", MEASURED)
def test_the_camera_s_own_file_costs_the_same_ram(name):
    network = read(name)
    if not {op.kind for op in network.ops} & {"SHAPE", "PACK", "STRIDED_SLICE"}:
        slim = flatbuffer.read(flatbuffer.write(network))
        assert arena.plan(slim).ram_bytes == arena.plan(network).ram_bytes


@pytest.mark.parametrize("name", MEASURED)
def test_the_breakdown_adds_up(name):
    plan = arena.plan(read(name))
    assert plan.arena_used_bytes == plan.head_bytes + plan.tail_bytes
    assert plan.tail_bytes == plan.per_channel_bytes + plan.structure_bytes
    live_bytes = plan.peak_activation_bytes + plan.peak_scratch_bytes
    assert plan.head_bytes == live_bytes + plan.fragmentation_bytes
    assert plan.fragmentation_bytes >= 0
    assert plan.ram_bytes == -(-plan.arena_used_bytes // 16) * 16 + 512


def test_the_known_head_and_tail_of_mobilenetv2():
    plan = arena.plan(read("mnv2_a035_r64_c3_k10.tflite"))
    assert (plan.head_bytes, plan.arena_used_bytes) == (61_440, 127_828)


@pytest.mark.parametrize("name", MEASURED)
def test_no_two_live_buffers_overlap_in_a_real_network(name):
    assert_disjoint(arena.plan(read(name)).buffers)


def assert_disjoint(buffers):
    for one, other in itertools.combinations(buffers, 2):
        apart = one.end <= other.offset or other.end <= one.offset
        assert apart or not one.overlaps(other)


def working_set_bytes(requests):
    times = range(-1, 1 + max((request.last_op for request in requests), default=0))
    return max(
        sum(r.size_bytes for r in requests if r.first_op <= time <= r.last_op)
        for time in times
    )


@st.composite
def request_lists(draw):
    triples = st.tuples(st.integers(1, 400), st.integers(-1, 12), st.integers(0, 6))
    return [
        arena.Request("", 16 * size, first, first + length)
        for size, first, length in draw(st.lists(triples, max_size=30))
    ]


@settings(deadline=None)
@given(request_lists())
def test_no_two_live_buffers_ever_overlap(requests):
    assert_disjoint(arena.place(requests))


@settings(deadline=None)
@given(request_lists())
def test_the_head_holds_the_working_set_and_no_more_than_everything(requests):
    head_bytes = max((buffer.end for buffer in arena.place(requests)), default=0)
    total_bytes = sum(request.size_bytes for request in requests)
    assert working_set_bytes(requests) <= head_bytes <= total_bytes


@settings(deadline=None)
@given(request_lists().filter(bool), st.data())
def test_growing_a_tensor_never_shrinks_the_lower_bound(requests, data):
    index = data.draw(st.integers(0, len(requests) - 1))
    old = requests[index]
    grown = [*requests]
    grown[index] = arena.Request("", old.size_bytes + 16, old.first_op, old.last_op)
    assert working_set_bytes(grown) >= working_set_bytes(requests)


def test_the_later_of_two_equal_buffers_is_placed_first():
    requests = [arena.Request(name, 64, 0, 1) for name in ("early", "late")]
    offsets = {buffer.name: buffer.offset for buffer in arena.place(requests)}
    assert offsets == {"late": 0, "early": 64}


def test_a_buffer_takes_the_lowest_gap_that_fits():
    requests = [
        arena.Request("large", 96, 0, 1),
        arena.Request("middle", 64, 1, 3),
        arena.Request("small", 48, 2, 3),
    ]
    offsets = {buffer.name: buffer.offset for buffer in arena.place(requests)}
    assert offsets == {"large": 0, "middle": 96, "small": 0}


@pytest.mark.parametrize(
    ("depth", "m7_bytes", "m55_bytes"), [(64, 2304, 2304), (3, 112, 128)]
)
def test_convolution_scratch(depth, m7_bytes, m55_bytes):
    network = convolution((8, 3, 3, depth), (16, 16, depth), (16, 16, 8))
    assert scratch_bytes(network) == [m7_bytes]
    assert scratch_bytes(network, "cortex-m55") == [m55_bytes]


def test_a_pointwise_convolution_needs_no_scratch():
    network = convolution((8, 1, 1, 32), (16, 16, 32), (16, 16, 8))
    assert scratch_bytes(network) == scratch_bytes(network, "cortex-m55") == []


@pytest.mark.parametrize(
    ("window", "m7_bytes", "m55_bytes"), [(3, [], [4464]), (5, [800], [12400])]
)
def test_depthwise_scratch(window, m7_bytes, m55_bytes):
    network = convolution(
        (1, window, window, 16),
        (8, 8, 16),
        (8, 8, 16),
        kind="DEPTHWISE_CONV_2D",
    )
    assert scratch_bytes(network) == m7_bytes
    assert scratch_bytes(network, "cortex-m55") == m55_bytes


def test_a_dilated_depthwise_convolution_needs_no_scratch():
    network = convolution(
        (1, 3, 3, 16),
        (8, 8, 16),
        (8, 8, 16),
        kind="DEPTHWISE_CONV_2D",
        dilation_h=2,
        dilation_w=2,
    )
    assert scratch_bytes(network) == scratch_bytes(network, "cortex-m55") == []


def test_a_one_row_convolution_needs_less_on_cortex_m55():
    network = convolution((8, 1, 3, 4), (1, 32, 4), (1, 32, 8))
    assert scratch_bytes(network) == [48]
    assert scratch_bytes(network, "cortex-m55") == [16]


@pytest.mark.parametrize(
    ("kernel", "options", "m7_bytes", "m55_bytes"),
    [
        # CMSIS-NN arm_convolve_get_buffer_sizes_s8.c: 2 columns of int16, the taps
        # rounded up to 4, on the M7; 4 of int8, rounded up to 16, on the M55.
        ((8, 3, 3, 6), {"dilation_h": 2, "dilation_w": 2}, [224], [256]),
        ((8, 1, 1, 6), {"dilation_h": 2, "dilation_w": 2}, [32], [64]),
        ((8, 1, 1, 6), {"stride_h": 2, "stride_w": 2}, [], []),
        ((8, 5, 5, 6), {}, [608], [640]),
        ((8, 1, 3, 6), {}, [80], [128]),
        ((8, 3, 1, 6), {}, [80], [128]),
    ],
)
def test_convolution_scratch_by_window(kernel, options, m7_bytes, m55_bytes):
    stride = options.get("stride_h", 1)
    network = convolution(
        kernel, (16, 16, 6), (16 // stride, 16 // stride, 8), **options
    )
    assert scratch_bytes(network) == m7_bytes
    assert scratch_bytes(network, "cortex-m55") == m55_bytes


@pytest.mark.parametrize(
    ("stride", "result", "m55_bytes"),
    [
        (1, 32, 16),  # one column of padding on either side
        (2, 16, 16),  # one on the right alone: 3 columns, 12 bytes
        (16, 2, 16),
        (32, 1, 16),
    ],
)
def test_one_row_convolution_scratch_by_stride(stride, result, m55_bytes):
    network = convolution(
        (8, 1, 3, 4), (1, 32, 4), (1, result, 8), stride_w=stride, stride_h=1
    )
    assert scratch_bytes(network, "cortex-m55") == [m55_bytes]


def test_a_one_row_convolution_of_padding_alone_takes_the_common_buffer():
    network = convolution((8, 1, 7, 4), (1, 4, 4), (1, 4, 8))
    assert scratch_bytes(network, "cortex-m55") == [4 * 32]


@pytest.mark.parametrize(("multiplier", "stride", "m7_bytes"), [(1, 2, []), (2, 1, [])])
def test_depthwise_scratch_of_strides_and_multipliers(multiplier, stride, m7_bytes):
    network = convolution(
        (1, 3, 3, 16 * multiplier),
        (8, 8, 16),
        (8 // stride, 8 // stride, 16 * multiplier),
        kind="DEPTHWISE_CONV_2D",
        stride_h=stride,
        stride_w=stride,
    )
    assert scratch_bytes(network) == m7_bytes
    assert bool(scratch_bytes(network, "cortex-m55")) == (multiplier == 1)


def test_a_depthwise_convolution_of_batches_is_refused():
    network = convolution((1, 3, 3, 4), (8, 8, 4), (8, 8, 4), kind="DEPTHWISE_CONV_2D")
    source = dataclasses.replace(network.tensors[0], shape=(4, 8, 8, 4))
    network = dataclasses.replace(network, tensors=(source, *network.tensors[1:]))
    with pytest.raises(UnsupportedModelError, match=r"batch of 1\. Received: 4"):
        arena.plan(network)


def structure_bytes(kind, *tensors):
    """The tail of one operation that has neither tables nor scratch."""
    op = Op(kind, tuple(range(len(tensors) - 1)), (len(tensors) - 1,))
    network = Network(tensors, (op,), inputs=(0,), outputs=(len(tensors) - 1,))
    assert scratch_bytes(network) == []
    return arena.plan(network).tail_bytes


@pytest.mark.parametrize(
    ("kind", "op_data_bytes"),
    [
        ("LOGISTIC", 16),
        ("TANH", 16),
        ("RELU", 28),
        ("RELU6", 2),
        ("QUANTIZE", 32),
        ("HARD_SWISH", 20),
        ("ELU", 256),
        ("NEG", 0),
    ],
)
def test_what_an_operation_without_options_keeps(kind, op_data_bytes):
    # The tail grows downwards. Allocators 132, two tensors of 12, one node of 32: 188;
    # then the data, down to a multiple of 16. Then one input and one output: a list of
    # 4 bytes, down to a multiple of 16, a tensor of 32, its quantization of 12 and 8.
    before_bytes = -(-(188 + op_data_bytes) // 16) * 16 if op_data_bytes else 188
    with_input = -(-(before_bytes + 4) // 16) * 16 + 52
    with_output = -(-(with_input + 4) // 16) * 16 + 52
    assert structure_bytes(kind, activation(8), activation(8)) == with_output


def test_a_float_convolution_keeps_no_tables_and_needs_no_scratch():
    quantized = convolution((8, 3, 3, 4), (16, 16, 4), (16, 16, 8))
    tensors = tuple(
        dataclasses.replace(tensor, dtype="float32") for tensor in quantized.tensors
    )
    network = dataclasses.replace(quantized, tensors=tensors)
    assert scratch_bytes(network) == []
    plan = arena.plan(network)
    assert (plan.per_channel_bytes, plan.head_bytes) == (0, 4 * 16 * 16 * (4 + 8))


def test_dense_weights_computed_at_run_time_need_no_sums():
    weight = dataclasses.replace(weights(4, 8), data=None)
    op = Op("FULLY_CONNECTED", (0, 1, -1), (2,), {"activation": "NONE"})
    network = Network((activation(8), weight, activation(4)), (op,), (0, 1), (2,))
    assert arena.plan(network, "cortex-m55").per_channel_bytes == 0
    assert scratch_bytes(network, "cortex-m55") == [16]


@pytest.mark.parametrize(
    ("op", "received"),
    [
        (Op("CONV_2D", (), (2,), UNIT), "at place 0 of \\(\\). Received: none"),
        (Op("CONV_2D", (0, -1), (2,), UNIT), "at place 1 of .* Received: none"),
        (Op("CONV_2D", (0, 1), (), UNIT), "at place 0 of \\(\\). Received: none"),
        (Op("CONV_2D", (3, 1), (2,), UNIT), r"of 4 dimensions .* shape \(1, 8\)"),
        (Op("AVERAGE_POOL_2D", (3,), (2,)), r"of 4 dimensions .* shape \(1, 8\)"),
        (Op("FULLY_CONNECTED", (3, 1), (2,)), "Expected FULLY_CONNECTED with a tensor"),
        (Op("REDUCE_MAX", (0,), (2,)), "at place 1 of"),
        (Op("MEAN", (0,), ()), "Expected MEAN with a tensor"),
    ],
)
def test_an_operation_that_is_not_whole_is_refused(op, received):
    tensors = (activation(8, 8, 4), weights(4, 3, 3, 4), activation(8, 8, 4))
    network = Network((*tensors, activation(8)), (op,), inputs=(0,), outputs=(2,))
    with pytest.raises(UnsupportedModelError, match=received):
        arena.plan(network)


def test_per_channel_dense_weights_are_refused():
    tensors = (activation(8), weights(4, 8, channels=4), activation(4))
    op = Op("FULLY_CONNECTED", (0, 1, -1), (2,), {"activation": "NONE"})
    with pytest.raises(
        UnsupportedModelError, match=r"Expected one scale\. Received: 4"
    ):
        arena.plan(Network(tensors, (op,), inputs=(0,), outputs=(2,)))


def test_an_unknown_operation_is_named():
    tensors = (activation(8), activation(8))
    network = Network(tensors, (Op("GELU", (0,), (1,)),), inputs=(0,), outputs=(1,))
    with pytest.raises(UnsupportedModelError, match="Received: GELU"):
        arena.plan(network)


def test_an_unknown_core_is_refused():
    with pytest.raises(ValueError, match="Expected 'cortex-m7' or 'cortex-m55'"):
        arena.plan(read("lenet.tflite"), core="cortex-m4")


def test_the_peak_operation_is_the_fullest():
    tensors = (activation(16), activation(64), activation(64), activation(16))
    ops = tuple(Op("RELU", (index,), (index + 1,)) for index in range(3))
    plan = arena.plan(Network(tensors, ops, inputs=(0,), outputs=(3,)))
    assert (plan.peak_op, plan.peak_activation_bytes, plan.head_bytes) == (1, 128, 128)
