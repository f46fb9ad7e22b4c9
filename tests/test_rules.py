"""Each rule of the firmware, broken on its own."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from file_edits import edited

from keras_omv import flatbuffer, rules
from keras_omv.network import Network, Op, Tensor

DATA = Path(__file__).parent / "data" / "device-ram"
SEP = (DATA / "sep.tflite").read_bytes()
STEPS = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
DENSE_STEPS = STEPS | {"dilation_h": 1, "dilation_w": 1, "activation": "NONE"}


def values(*shape, name="x", scale=0.1, zero_point=0, dtype="int8"):
    return Tensor(name, shape, dtype, np.float32([scale]), np.int64([zero_point]))


def constant(*shape, name="w", scale=0.02, zero_point=0, axis=0, content=None):
    data = np.ones(shape, "i1") if content is None else np.array(content, "i4")
    dtype = "int8" if content is None else "int32"
    scales = np.atleast_1d(np.float32(scale))
    return Tensor(name, data.shape, dtype, scales, np.int64([zero_point]), axis, data)


def one_op(kind, *tensors, **options):
    """A network of one operation whose last tensor is its output."""
    last = len(tensors) - 1
    op = Op(kind, tuple(range(last)), (last,), options)
    return Network(tensors, (op,), inputs=(0,), outputs=(last,))


def image(**changes):
    return values(1, 8, 8, 3, name="image", **changes)


def convolution(source=None, weights=None, result=None, **options):
    return one_op(
        "CONV_2D",
        source or image(),
        weights or constant(4, 3, 3, 3),
        result or values(1, 8, 8, 4, name="result"),
        **DENSE_STEPS | options,
    )


def broken(network, **options):
    """The rules that a network breaks, and what is said of the first."""
    found = rules.network_violations(network, **options)
    return [violation.rule for violation in found], str(found[0]) if found else ""


@pytest.mark.parametrize("path", sorted(DATA.glob("*.tflite")), ids=lambda p: p.stem)
def test_files_that_ran_on_cameras_break_no_rule(path):
    data = path.read_bytes()
    usual = rules.USUAL_INPUT_RANGES
    found = rules.network_violations(flatbuffer.read(data), input_ranges=usual)
    assert found == rules.file_violations(data) == ()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-45])
def test_a_scale_that_is_no_positive_number_is_a_collapsed_range(scale):
    found, text = broken(convolution(result=values(1, 8, 8, 4, name="r", scale=scale)))
    assert found == ["range"]
    assert "tensor 'r' has the scale" in text
    assert "export again with images" in text


@pytest.mark.parametrize("field", ["scales", "zero_points"])
def test_a_scale_or_zero_point_left_out_is_told(field):
    result = dataclasses.replace(values(1, 8, 8, 4), **{field: np.zeros(0)})
    found, text = broken(convolution(result=result))
    assert found == ["range"]
    assert "has no scale or no zero point" in text


def test_a_zero_point_outside_of_the_type_is_told():
    found, text = broken(convolution(image(zero_point=200)))
    assert found == ["range"]
    assert "has the zero point 200, where int8 takes -128 to 127" in text


def test_weights_per_channel_must_be_symmetric():
    weights = constant(4, 3, 3, 3, scale=[0.1] * 4, zero_point=3)
    found, text = broken(convolution(weights=weights))
    assert found == ["range"]
    assert "zero point 3, where int8 takes 0" in text


@pytest.mark.parametrize(("scale", "how"), [(1e-15, "narrow"), (1e15, "wide")])
def test_an_output_out_of_proportion_to_its_inputs_is_told(scale, how):
    found, text = broken(convolution(result=values(1, 8, 8, 4, scale=scale)))
    assert found == ["range"]
    assert f"too {how} a range" in text


def test_a_sum_far_narrower_than_its_parts_is_told():
    result = values(1, 8, 8, 3, scale=0.2 / 2**20)
    network = one_op("ADD", image(), image(), result, activation="NONE")
    assert broken(network)[0] == ["range"]
    sound = dataclasses.replace(result, scales=np.float32([0.21 / 2**20]))
    assert broken(one_op("ADD", image(), image(), sound, activation="NONE"))[0] == []


@pytest.mark.parametrize(
    ("kind", "scale", "zero_point"),
    [("SOFTMAX", 1 / 256, -128), ("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)],
)
def test_results_with_a_scale_built_in_have_that_scale(kind, scale, zero_point):
    def network(**changes):
        right = {"scale": scale, "zero_point": zero_point}
        return one_op(kind, image(), values(1, 8, 8, 3, **right | changes), beta=1.0)

    assert broken(network())[0] == []
    assert broken(network(scale=scale * 2))[0] == ["range"]
    assert broken(network(zero_point=zero_point + 1))[0] == ["range"]


def test_a_softmax_of_a_collapsed_range_is_told():
    result = values(1, 8, 8, 3, scale=1 / 256, zero_point=-128)
    found, text = broken(one_op("SOFTMAX", image(scale=2.0**-26), result, beta=1.0))
    assert found == ["range"]
    assert "too narrow" in text


def test_values_that_are_passed_on_keep_their_scale():
    options = STEPS | {"filter_h": 2, "filter_w": 2, "activation": "NONE"}
    network = one_op("MAX_POOL_2D", image(), values(1, 8, 8, 3, scale=0.2), **options)
    found, text = broken(network)
    assert found == ["range"]
    assert "misread the values" in text


def paddings(*rows):
    return constant(content=rows)


WRONG_SHAPES = {
    "rows": convolution(result=values(1, 7, 8, 4)),
    "channels": convolution(result=values(1, 8, 8, 5)),
    "depth": convolution(weights=constant(4, 3, 3, 2)),
    "valid": convolution(padding="VALID"),
    "stride": convolution(stride_h=2),
    "scales": convolution(weights=constant(4, 3, 3, 3, scale=[0.1] * 3)),
    "axis": convolution(weights=constant(4, 3, 3, 3, scale=[0.1] * 4, axis=3)),
    "bias": one_op(
        "CONV_2D",
        *(image(), constant(4, 3, 3, 3), constant(content=[0] * 3)),
        values(1, 8, 8, 4),
        **DENSE_STEPS,
    ),
    "multiplier": one_op(
        "DEPTHWISE_CONV_2D",
        *(image(), constant(1, 3, 3, 3), values(1, 8, 8, 3)),
        **DENSE_STEPS | {"depth_multiplier": 2},
    ),
    "pool": one_op(
        "AVERAGE_POOL_2D",
        *(image(), values(1, 4, 8, 3)),
        **STEPS | {"filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2},
    ),
    "dense": one_op("FULLY_CONNECTED", image(), constant(5, 100), values(1, 5)),
    "units": one_op("FULLY_CONNECTED", image(), constant(5, 192), values(1, 6)),
    "sum": one_op("ADD", image(), values(1, 8, 4, 3), image()),
    "same": one_op("RELU", image(), values(1, 8, 8, 4)),
    "count": one_op("RESHAPE", image(), values(1, 191)),
    "joined": one_op("CONCATENATION", image(), image(), values(1, 8, 8, 5), axis=3),
    "joined axis": one_op(
        "CONCATENATION", image(), image(), values(1, 8, 8, 6), axis=4
    ),
    "padded": one_op(
        "PAD",
        image(),
        paddings([0, 0], [1, 1], [1, 1], [0, 0]),
        values(1, 10, 9, 3),
    ),
    "negative padding": one_op(
        "PAD",
        image(),
        paddings([0, 0], [-1, 1], [0, 0], [0, 0]),
        values(1, 8, 8, 3),
    ),
    "mean": one_op(
        "MEAN", image(), constant(content=[1, 2]), values(1, 8), keep_dims=False
    ),
    "mean axis": one_op(
        "MEAN", image(), constant(content=[1, 4]), values(1, 3), keep_dims=False
    ),
    "nothing": one_op("RELU", image(), values(1, 0, 8, 3)),
    "one input": one_op("ADD", image(), image()),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_shapes_that_an_operator_does_not_compute_on_are_told(name):
    found, text = broken(WRONG_SHAPES[name])
    assert found == ["shapes"]
    assert f"{WRONG_SHAPES[name].ops[0].kind} does not compute on" in text


RIGHT_SHAPES = {
    "same": convolution(),
    "valid": convolution(padding="VALID", result=values(1, 6, 6, 4)),
    "stride": convolution(stride_h=2, stride_w=3, result=values(1, 4, 3, 4)),
    "dilation": convolution(
        padding="VALID", dilation_h=2, dilation_w=3, result=values(1, 4, 2, 4)
    ),
    "groups": convolution(weights=constant(6, 3, 3, 1), result=values(1, 8, 8, 6)),
    "depthwise": one_op(
        "DEPTHWISE_CONV_2D",
        *(image(), constant(1, 3, 3, 6, scale=[0.1] * 6, axis=3)),
        values(1, 8, 8, 6),
        **DENSE_STEPS | {"depth_multiplier": 2},
    ),
    "dense": one_op("FULLY_CONNECTED", image(), constant(5, 192), values(1, 5)),
    "sum": one_op("ADD", image(), values(1, 1, 3), image()),
    "joined": one_op("CONCATENATION", image(), image(), values(1, 16, 8, 3), axis=-3),
    "padded": one_op(
        "PAD", image(), paddings([0, 0], [1, 2], [0, 1], [0, 0]), values(1, 11, 9, 3)
    ),
    "mean": one_op(
        "MEAN", image(), constant(content=[1, -2]), values(1, 3), keep_dims=False
    ),
    "kept": one_op(
        "MEAN", image(), constant(content=[1, 2]), values(1, 1, 1, 3), keep_dims=True
    ),
}


@pytest.mark.parametrize("name", RIGHT_SHAPES)
def test_shapes_that_an_operator_computes_on_are_not_told(name):
    assert broken(RIGHT_SHAPES[name]) == ([], "")


def test_an_output_that_the_camera_cannot_hand_out_is_told():
    network = one_op("ARG_MAX", image(), values(1, 8, 8, dtype="int32"))
    assert broken(network)[0] == ["output"]
    network = one_op("EXPAND_DIMS", image(), values(1, 1, 8, 8, 3))
    found, text = broken(network)
    assert found == ["output"]
    assert "more than 4 dimensions" in text


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (1, 192), (1, 8, 24)])
def test_an_input_that_takes_no_image_is_told(shape):
    found, text = broken(one_op("RELU", values(*shape), values(*shape)))
    assert found == ["input"]
    assert "takes no image" in text


def float_network():
    return one_op("RELU", image(dtype="float32"), values(1, 8, 8, 3, dtype="float32"))


def test_float_is_a_warning_and_an_error_where_the_firmware_scales_no_pixels():
    (found,) = rules.network_violations(float_network())
    assert (found.rule, found.severity) == ("int8", "warning")
    assert "2 of 2 tensors are not int8, the first 'image' of float32" in found.what
    found, text = broken(float_network(), firmware="4.7.0")
    assert found == ["input", "int8"]
    assert "update the camera" in text


@pytest.mark.parametrize(
    ("scale", "zero_point", "dtype"),
    [
        (1.0, -128, "int8"),
        (1 / 255, -128, "int8"),
        (2 / 255, -1, "int8"),
        (2 / 255, 0, "int8"),
        (1 / 255, 0, "uint8"),
        (2 / 255, 128, "uint8"),
    ],
)
def test_inputs_that_take_pixels_as_they_are_pass(scale, zero_point, dtype):
    source = image(scale=scale, zero_point=zero_point, dtype=dtype)
    network = one_op("QUANTIZE", source, image())
    found = rules.network_violations(network, input_ranges=rules.USUAL_INPUT_RANGES)
    assert "input pin" not in [violation.rule for violation in found]


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [(0.8 / 255, -128), (2 / 255, -128), (2 / 255, 4), (1.9 / 255, -6)],
    ids=["dark images", "half", "shifted", "no black"],
)
def test_inputs_calibrated_on_some_images_alone_are_told(scale, zero_point):
    network = one_op("RELU", image(scale=scale, zero_point=zero_point), image())
    found, text = broken(network, input_ranges=rules.USUAL_INPUT_RANGES)
    assert found == ["input pin"]
    assert "the camera gives pixels as they are" in text
    low, high = ((pixel - 128 - zero_point) * scale for pixel in (0, 255))
    assert broken(network, input_ranges=[(low, high)])[0] == []
    assert broken(network)[0] == []


@pytest.mark.parametrize("shift", [1, 2])
def test_weights_that_no_cortex_can_load_are_told(shift):
    # The first weights once more behind the file, where the buffer now points.
    data = bytearray(flatbuffer.write(flatbuffer.read(SEP)))
    buffer = schema.Model.GetRootAs(data).Buffers(1)
    content = buffer.DataAsNumpy().tobytes()
    field = buffer._tab.Pos + buffer._tab.Offset(4)
    data += bytes(-len(data) % 16 + shift)
    data[field : field + 4] = (len(data) - field).to_bytes(4, "little")
    data += len(content).to_bytes(4, "little") + content
    (found,) = rules.file_violations(bytes(data))
    assert found.rule == "alignment"
    assert "buffer 1 lies at byte" in found.what
    assert "hard fault" in found.what
    assert flatbuffer.read(bytes(data)).ops


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"# labels\ncat\ndog\n", "without the mark b'TFL3'"),
        (SEP[:9000], "cut short or damaged"),
        (b"NBIN" + SEP, "compiled for the N6's accelerator"),
    ],
)
def test_what_is_no_model_is_told(data, what):
    (found,) = rules.file_violations(data)
    assert found.rule == "file"
    assert what in found.what
    assert found.remedy


def test_a_file_of_several_subgraphs_or_another_schema_is_told():
    def double(model):
        model.subgraphs *= 2

    def age(model):
        model.version = 2

    for change, what in ((double, "of one subgraph"), (age, "schema version 3")):
        (found,) = rules.file_violations(edited(SEP, change))
        assert what in found.what


def test_the_n6_takes_compiled_files_alone():
    (found,) = rules.file_violations(SEP, target="OPENMV_N6")
    assert found.rule == "compiler"
    assert "stedgeai" in found.remedy


def test_a_second_dot_hides_the_labels(tmp_path):
    (found,) = rules.name_violations(tmp_path / "mobilenet_0.35.tflite")
    assert found.rule == "name"
    assert "in 'mobilenet_0.txt', the name up to its first dot" in found.what
    assert found.severity == "warning"
    (tmp_path / "mobilenet_0.35.txt").write_text("cat\ndog\n")
    (found,) = rules.name_violations(tmp_path / "mobilenet_0.35.tflite")
    assert found.severity == "error"
    assert rules.name_violations(tmp_path / "model.tflite") == ()


def test_labels_beside_the_file_must_be_as_many_as_the_classes(tmp_path):
    network = flatbuffer.read(SEP)
    path, labels = tmp_path / "model.tflite", tmp_path / "labels.txt"
    labels.write_bytes(b"a\nb\nc\n")
    assert rules.name_violations(path, network) == ()
    labels.write_bytes(b"a\nb\n")
    (found,) = rules.name_violations(path, network)
    assert found.what == "labels.txt has 2 labels for 3 classes"
    assert found.severity == "warning"
    (tmp_path / "model.txt").write_bytes(b"a\r\nb\r\n")
    found = rules.name_violations(path, network)
    assert "model.txt has lines that end with a carriage return" in found[0].what
    assert "model.txt has 2 labels for 3 classes" in found[1].what
    assert [one.severity for one in found] == ["error", "error", "warning"]


def test_labels_of_what_is_no_classifier_are_not_counted_against_it(tmp_path):
    path = tmp_path / "model.tflite"
    path.with_suffix(".txt").write_bytes(b"a\nb\n")
    single = flatbuffer.read(SEP)
    for network in (
        one_op("RELU", image(), values(1, 8, 8, 3)),
        dataclasses.replace(single, outputs=single.outputs * 2),
    ):
        (found,) = rules.name_violations(path, network)
        assert found.what == "model.txt has 2 labels for 3 classes"
        assert found.severity == "warning"


def test_tensors_without_a_name_are_told_by_their_number():
    network = convolution(image(scale=0.0))
    nameless = tuple(dataclasses.replace(t, name="") for t in network.tensors)
    _, text = broken(dataclasses.replace(network, tensors=nameless))
    assert "tensor '#0' has the scale 0" in text
