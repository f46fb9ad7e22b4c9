"""The files of our writer: what they hold, how large they are, what they answer."""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from keras_omv import flatbuffer
from keras_omv.architecture import Levers, network_of_levers
from keras_omv.network import Network

DATA = pathlib.Path(__file__).parent / "data" / "device-ram"
REFERENCES = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.tflite"))}
WRITABLE = [
    name
    for name, file in REFERENCES.items()
    if {op.kind for op in flatbuffer.read(file).ops} <= flatbuffer.WRITABLE
]
SMALL = Levers(alpha=0.1, resolution=96, classes=5)
IMAGES = 3

both_files = pytest.mark.parametrize("desktop", [False, True], ids=["camera", "twin"])


def written(levers=SMALL, **options):
    return flatbuffer.write(network_of_levers(levers), **options)


def graph_of(file):
    """The subgraph as the schema's own reader sees it."""
    return schema.Model.GetRootAs(file).Subgraphs(0)


def tensors_of(file):
    graph = graph_of(file)
    return [graph.Tensors(index) for index in range(graph.TensorsLength())]


def ops_of(file):
    graph = graph_of(file)
    return [graph.Operators(index) for index in range(graph.OperatorsLength())]


def vector_place(table, slot):
    """Where the elements of a vector lie in the file; `None` where there is none."""
    field = table._tab.Offset(4 + 2 * slot)
    return table._tab.Vector(field) if field else None


def values_place(file, tensor):
    return vector_place(schema.Model.GetRootAs(file).Buffers(tensor.Buffer()), 0)


def images_of(network):
    generator = np.random.default_rng(5)
    return generator.integers(-128, 128, (IMAGES, *network.input.shape), "int8")


def litert_scores(file, images):
    interpreter = litert.Interpreter(
        model_content=file,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    (source,), (target,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    scores = []
    for image in images:
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        scores.append(interpreter.get_tensor(target["index"]))
    return np.stack(scores)


def tflm_scores(file, images):
    interpreter = pytest.importorskip("tflite_micro").runtime.Interpreter.from_bytes(
        file
    )
    scores = []
    for image in images:
        interpreter.set_input(image, 0)
        interpreter.invoke()
        scores.append(interpreter.get_output(0).copy())
    return np.stack(scores)


@pytest.mark.parametrize("name", WRITABLE)
def test_a_rewritten_file_answers_as_the_converter_s_does_on_tflm(name):
    network = flatbuffer.read(REFERENCES[name])
    images = images_of(network)
    theirs = tflm_scores(REFERENCES[name], images)
    for desktop in (False, True):
        ours = tflm_scores(flatbuffer.write(network, desktop=desktop), images)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", WRITABLE)
def test_the_desktop_twin_answers_as_the_converter_s_file_does_on_litert(name):
    network = flatbuffer.read(REFERENCES[name])
    images = images_of(network)
    twin = flatbuffer.write(network, desktop=True)
    theirs = litert_scores(REFERENCES[name], images)
    np.testing.assert_array_equal(litert_scores(twin, images), theirs)


@pytest.mark.parametrize(
    ("name", "saving"),
    [
        ("mnv2_a005_r48_c1_k2", 0.55),
        ("mnv2_a010_r128_c3_k2", 0.47),
        ("mnv2_a035_r64_c3_k10", 0.27),
        ("sep", 0.47),
    ],
)
def test_a_rewritten_file_is_smaller_than_the_converter_s(name, saving):
    theirs = REFERENCES[name]
    ours = flatbuffer.write(flatbuffer.read(theirs))
    assert len(ours) < (1 - saving) * len(theirs)


def test_the_known_sizes_of_two_files():
    assert len(written()) == 127_120
    levers = dataclasses.replace(SMALL, alpha=0.35)
    assert len(written(levers)) == 457_920


def test_what_is_not_values_takes_little():
    network = network_of_levers(SMALL)
    constants = [tensor for tensor in network.tensors if tensor.is_constant]
    values_bytes = sum(tensor.data.nbytes for tensor in constants)
    scales_bytes = sum(t.scales.nbytes for t in constants if t.dtype == "int8")
    objects = len(network.tensors) + len(network.ops)
    assert len(written()) - values_bytes - scales_bytes < 54 * objects


def test_the_camera_s_file_holds_nothing_that_tflm_does_not_read():
    file = flatbuffer.write(flatbuffer.read(REFERENCES["mnv2_a010_r64_c3_k10"]))
    model = schema.Model.GetRootAs(file)
    assert model.Description() is None
    assert model.MetadataLength() == model.SignatureDefsLength() == 0
    assert graph_of(file).Name() is None
    for tensor in tensors_of(file):
        assert tensor.Name() is None
        assert tensor.ShapeSignatureLength() == 0
        quantization = tensor.Quantization()
        if quantization is not None:
            assert quantization.MinLength() == quantization.MaxLength() == 0
            assert quantization.ZeroPointLength() == 1


def test_the_desktop_twin_keeps_names_and_a_zero_point_per_channel():
    network = flatbuffer.read(REFERENCES["mnv2_a010_r64_c3_k10"])
    twin = tensors_of(flatbuffer.write(network, desktop=True))
    for tensor, written_tensor in zip(network.tensors, twin, strict=True):
        assert written_tensor.Name().decode() == tensor.name
        if tensor.scales.size:
            quantization = written_tensor.Quantization()
            assert quantization.ZeroPointLength() == tensor.scales.size


@both_files
def test_every_value_lies_where_its_reader_may_load_it(desktop):
    file = written(Levers(alpha=0.35, resolution=33, classes=3), desktop=desktop)
    dtypes = collections.Counter()
    for tensor in tensors_of(file):
        assert vector_place(tensor, 0) % 4 == 0
        quantization = tensor.Quantization()
        if quantization is not None:
            assert vector_place(quantization, 2) % 4 == 0
            assert vector_place(quantization, 3) % 8 == 0
        values = values_place(file, tensor)
        if values is not None:
            is_int32 = tensor.Type() == schema.TensorType.INT32
            assert values % (4 if is_int32 else flatbuffer.DATA_ALIGNMENT) == 0
            dtypes[tensor.Type()] += 1
    assert min(dtypes[schema.TensorType.INT8], dtypes[schema.TensorType.INT32]) == 53


def test_weights_follow_each_other_without_padding():
    file = written()
    places = []
    for tensor in tensors_of(file):
        if tensor.Type() == schema.TensorType.INT8 and tensor.Buffer():
            size = (
                np.prod(tensor.ShapeAsNumpy()) + 4 * tensor.Quantization().ScaleLength()
            )
            places.append((values_place(file, tensor), size))
    places.sort()
    gaps = [
        after - place - size for (place, size), (after, _) in itertools.pairwise(places)
    ]
    # Two counts and a buffer; the dense layer's single scale is padded, and the field
    # table of the buffers lies behind the first that is written.
    assert sorted(gaps)[:-2] == [16] * (len(gaps) - 2)
    assert max(gaps) <= 32


def test_equal_options_are_written_once():
    options = [op.BuiltinOptions() for op in ops_of(written())]
    places = {table.Pos for table in options}
    # Stem, expansion, projection; depthwise with stride 1 and 2; ADD, MEAN,
    # FULLY_CONNECTED and SOFTMAX.
    assert len(places) == 9


def test_equal_shapes_are_written_once():
    tensors = tensors_of(written())
    shapes = {tuple(tensor.ShapeAsNumpy()) for tensor in tensors}
    assert len({vector_place(tensor, 0) for tensor in tensors}) == len(shapes)


def test_scales_and_zero_points_of_activations_are_never_shared():
    # Else the size would depend on the training.
    activations = sum(not t.is_constant for t in network_of_levers(SMALL).tensors)
    tensors = [t for t in tensors_of(written()) if t.Quantization() and not t.Buffer()]
    for slot in (2, 3):
        places = {vector_place(tensor.Quantization(), slot) for tensor in tensors}
        assert len(places) == len(tensors) == activations


def trained(network, seed, *, zeros):
    """The same architecture with other weights, scales and zero points."""
    generator = np.random.default_rng(seed)
    tensors = []
    for tensor in network.tensors:
        scales = generator.uniform(1e-30, 1e3, tensor.scales.shape).astype("f4")
        zero_points, data = tensor.zero_points, tensor.data
        if data is None:
            zero_points = generator.integers(-128, 128, zero_points.shape)
        elif scales.size:
            limits = np.iinfo(data.dtype)
            data = generator.integers(limits.min, limits.max, data.shape, data.dtype)
            data[generator.random(data.shape) < zeros] = 0
        changes = {"scales": scales, "zero_points": zero_points, "data": data}
        tensors.append(dataclasses.replace(tensor, **changes))
    return Network(tuple(tensors), network.ops, network.inputs, network.outputs)


@both_files
@pytest.mark.parametrize("zeros", [0.0, 0.5, 1.0])
def test_the_size_depends_on_the_architecture_alone(desktop, zeros):
    network = network_of_levers(Levers(alpha=0.1, resolution=33, classes=3))
    size = len(flatbuffer.write(network, desktop=desktop))
    for seed in range(3):
        other = trained(network, seed, zeros=zeros)
        file = flatbuffer.write(other, desktop=desktop)
        assert len(file) == size
        again = flatbuffer.read(file)
        for tensor, expected in zip(again.tensors, other.tensors, strict=True):
            if expected.is_constant:
                np.testing.assert_array_equal(tensor.data, expected.data)
            else:
                np.testing.assert_array_equal(tensor.zero_points, expected.zero_points)


@both_files
def test_a_file_is_the_same_in_every_process(desktop):
    code = (
        "import hashlib, sys;"
        "from keras_omv import flatbuffer;"
        "from keras_omv.architecture import Levers, network_of_levers;"
        f"network = network_of_levers({SMALL!r});"
        f"file = flatbuffer.write(network, desktop={desktop});"
        "print(hashlib.sha256(file).hexdigest())"
    )
    expected = hashlib.sha256(written(desktop=desktop)).hexdigest()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
