"""Model files that are damaged, unusual or not models at all."""

import itertools
import tracemalloc
from pathlib import Path

import flatbuffers
import mutants
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_omv import arena, firmware, flatbuffer
from keras_omv.errors import ModelFileError, UnsupportedModelError
from keras_omv.network import CUSTOM

DATA = Path(__file__).parent / "data" / "device-ram"
FILES = sorted(DATA.glob("*.tflite"))
SEP = (DATA / "sep.tflite").read_bytes()
MUTANTS = 1000


def edited(change, name="sep.tflite"):
    """A reference file after a change to its object tree."""
    data = (DATA / name).read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    change(model)
    return packed(model)


def packed(model):
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def graph_of(model):
    return model.subgraphs[0]


def first(model, kind):
    """The first operator of a kind."""
    wanted = getattr(schema.BuiltinOperator, kind)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return next(
        op for op in graph_of(model).operators if codes[op.opcodeIndex] == wanted
    )


def weights_of(model):
    return graph_of(model).tensors[first(model, "CONV_2D").inputs[1]]


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (b"", "an empty file"),
        (b"\x1c\0", "2 bytes"),
        (b"# labels\ncat\ndog\n", "a file that starts with b'# labels'"),
        (b"\0" * 64, "without the mark b'TFL3'"),
        (SEP[:4] + b"TFL2" + SEP[8:], "without the mark b'TFL3'"),
        (b"\xff" * 4 + b"TFL3" + b"\xff" * 64, "whose tables lead to bytes"),
        (b"\x08\0\0\0TFL3" + b"\0" * 64, "Received: version 0"),
    ],
)
def test_what_is_no_model_is_said_so(data, received):
    with pytest.raises(ModelFileError, match=received):
        flatbuffer.read(data)


def test_a_truncated_file_is_an_error_wherever_it_ends():
    for size in range(0, len(SEP), 101):
        with pytest.raises(ModelFileError, match=r"Expected a sound .*Received: "):
            flatbuffer.read(SEP[:size])


def set_version(model):
    model.version = 2


def add_subgraph(model):
    model.subgraphs.append(model.subgraphs[0])


def drop_subgraphs(model):
    model.subgraphs = []


def add_plan(model):
    plan = schema.MetadataT()
    plan.name = "OfflineMemoryAllocation"
    model.metadata = [plan]


def make_variable(model):
    graph_of(model).tensors[0].isVariable = True


def drop_inputs(model):
    graph_of(model).inputs = []


def input_out_of_range(model):
    graph_of(model).inputs = [4000]


def operand_out_of_range(model):
    op = first(model, "CONV_2D")
    op.inputs = [op.inputs[0], 4000]


def operand_below_range(model):
    op = first(model, "CONV_2D")
    op.inputs = [op.inputs[0], op.inputs[1], -2]


def output_left_out(model):
    first(model, "CONV_2D").outputs = [-1]


def buffer_out_of_range(model):
    weights_of(model).buffer = 4000


def code_out_of_range(model):
    first(model, "CONV_2D").opcodeIndex = 4000


def close_a_cycle(model):
    ops = graph_of(model).operators
    ops[0].inputs = [ops[-1].outputs[0], *ops[0].inputs[1:]]


def reverse_the_order(model):
    graph_of(model).operators.reverse()


def write_twice(model):
    ops = graph_of(model).operators
    ops[1].outputs = ops[0].outputs


def write_weights(model):
    op = first(model, "CONV_2D")
    op.outputs = [op.inputs[1]]


def negative_shape(model):
    graph_of(model).tensors[0].shape = [1, -1, -1, 3]


def many_dimensions(model):
    graph_of(model).tensors[0].shape = [1] * 1000


def short_weights(model):
    buffer = model.buffers[weights_of(model).buffer]
    buffer.data = buffer.data[:-1]


def no_options(model):
    op = first(model, "CONV_2D")
    op.builtinOptions, op.builtinOptionsType = None, 0


def other_options(model):
    op = first(model, "CONV_2D")
    op.builtinOptions = schema.SoftmaxOptionsT()
    op.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions


def no_stride(model):
    first(model, "CONV_2D").builtinOptions.strideW = 0


def unknown_padding(model):
    first(model, "CONV_2D").builtinOptions.padding = 7


def unknown_activation(model):
    first(model, "CONV_2D").builtinOptions.fusedActivationFunction = -1


def many_tensors(model):
    graph_of(model).tensors += [graph_of(model).tensors[0]] * 5000


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (set_version, "version 2"),
        (add_subgraph, "Received: 2; the camera runs the first"),
        (drop_subgraphs, "without a network"),
        (add_plan, "its own plan, the metadata OfflineMemoryAllocation"),
        (make_variable, "a variable"),
        (drop_inputs, "without an input or an output"),
        (input_out_of_range, r"tensor 4000 of \d+"),
        (operand_out_of_range, r"tensor 4000 of \d+"),
        (operand_below_range, r"tensor -2 of \d+"),
        (output_left_out, r"tensor -1 of \d+"),
        (buffer_out_of_range, r"in buffer 4000 of \d+"),
        (code_out_of_range, r"code 4000 of \d+"),
        (close_a_cycle, r"operator 0 .* that reads what comes later"),
        (reverse_the_order, "that reads what comes later"),
        (write_twice, "which is written over"),
        (write_weights, "which is written over"),
        (negative_shape, r"of shape \(1, -1, -1, 3\)"),
        (many_dimensions, "of 1000 dimensions"),
        (short_weights, r"of \d+ bytes where \d+ belong"),
        (no_options, "CONV_2D without its options"),
        (other_options, "CONV_2D without its options"),
        (no_stride, "CONV_2D with stride_w 0"),
        (unknown_padding, "CONV_2D with padding 7"),
        (unknown_activation, "CONV_2D with activation -1"),
        (many_tensors, "Expected at most 4096 tensors"),
    ],
)
def test_what_is_not_sound_is_named(change, received):
    with pytest.raises(ModelFileError, match=received):
        flatbuffer.read(edited(change))


def numbered(data, offset, number):
    return data[:offset] + number.to_bytes(4, "little") + data[offset + 4 :]


def test_a_vector_of_four_gigabytes_allocates_nothing():
    shape = np.int32([4, *flatbuffer.read(SEP).input.shape]).tobytes()
    mutant = numbered(SEP, SEP.index(shape), 2**32 - 1)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="whose tables lead to bytes"):
        flatbuffer.read(mutant)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * len(SEP) + 1_000_000


def vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def test_tables_that_share_their_bytes_cannot_multiply_the_work():
    builder = flatbuffers.Builder(0)
    inputs = builder.CreateNumpyVector(np.zeros(2000, "i4"))
    ops = []
    for _ in range(1500):
        schema.OperatorStart(builder)
        schema.OperatorAddInputs(builder, inputs)
        ops.append(schema.OperatorEnd(builder))
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    codes, operators = vector(builder, [code.Pack(builder)]), vector(builder, ops)
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    graphs = vector(builder, [schema.SubGraphEnd(builder)])
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    with pytest.raises(ModelFileError, match="tables that share the file's"):
        flatbuffer.read(bytes(builder.Output()))


def by_offset():
    """A file whose first weights lie behind the flatbuffer, as some tools write."""
    weights = b""

    def move(model):
        nonlocal weights
        buffer = model.buffers[weights_of(model).buffer]
        weights = bytes(buffer.data)
        # A number of the right size first, so that the place does not move.
        buffer.data, buffer.size, buffer.offset = None, len(weights), 2**40 + 1

    file = edited(move)
    marker = (2**40 + 1).to_bytes(8, "little")
    assert file.count(marker) == 1
    return file.replace(marker, len(file).to_bytes(8, "little")) + weights, weights


def test_weights_by_file_offset_are_read_and_told():
    file, weights = by_offset()
    network = flatbuffer.read(file)
    (problem,) = network.file_problems
    assert "is stored by file offset, which TFLM does not follow" in problem
    moved = next(t for t in network.tensors if problem.split("'")[1] == t.name)
    assert moved.data.tobytes() == weights
    with pytest.raises(UnsupportedModelError, match="is stored by file offset"):
        arena.plan(network)


def test_weights_by_an_offset_behind_the_file_are_an_error():
    file, _ = by_offset()
    with pytest.raises(ModelFileError, match="whose tables lead to bytes"):
        flatbuffer.read(file[:-1])


def make_sparse(model):
    weights_of(model).sparsity = schema.SparsityParametersT()


def open_the_size(model):
    graph_of(model).tensors[graph_of(model).inputs[0]].shapeSignature = [-1, -1, -1, 3]


def empty_the_weights(model):
    model.buffers[weights_of(model).buffer].data = None


def empty_the_output(model):
    unused = schema.TensorT()
    unused.shape, unused.name = [1, 2], b"unused"
    graph_of(model).tensors.append(unused)
    graph_of(model).outputs = [len(graph_of(model).tensors) - 1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (make_sparse, "is sparse, which TFLM cannot read"),
        (open_the_size, r"of shape \(\?, \?, \?, 3\) leaves its size open"),
        (empty_the_weights, "which CONV_2D reads, has no values"),
        (empty_the_output, "'unused', which the camera reads, has no values"),
    ],
)
def test_what_the_camera_cannot_run_is_told_and_has_no_memory_plan(change, problem):
    network = flatbuffer.read(edited(change))
    assert network.file_problems == firmware.firmware_problems(network)
    with pytest.raises(UnsupportedModelError, match=problem):
        arena.plan(network)


def test_an_open_batch_is_the_usual_case_and_no_problem():
    def open_the_batch(model):
        graph_of(model).tensors[graph_of(model).inputs[0]].shapeSignature = [
            -1,
            1,
            1,
            3,
        ]

    assert flatbuffer.read(edited(open_the_batch)).file_problems == ()


def rename(code, name=None):
    def change(model):
        convolution = model.operatorCodes[first(model, "CONV_2D").opcodeIndex]
        convolution.builtinCode, convolution.customCode = code, name
        convolution.deprecatedBuiltinCode = min(code, 127)

    return change


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (rename(schema.BuiltinOperator.GELU), "GELU"),
        (rename(schema.BuiltinOperator.STABLEHLO_ADD), "STABLEHLO_ADD"),
        (rename(schema.BuiltinOperator.CUSTOM, b"FlexErf"), CUSTOM + "FlexErf"),
        (rename(100_000), "operator 100000"),
    ],
)
def test_an_operator_unknown_to_the_camera_is_named(change, kind):
    network = flatbuffer.read(edited(change))
    assert network.ops[0].kind == kind
    (problem,) = firmware.firmware_problems(network)
    assert problem == f"firmware 5.0 has no operator {kind}"
    with pytest.raises(UnsupportedModelError, match=f"Received: {kind}"):
        arena.plan(network)


def test_types_that_numpy_lacks_keep_their_bytes():
    def pack_weights(model):
        weights = weights_of(model)
        weights.type = schema.TensorType.INT4
        buffer = model.buffers[weights.buffer]
        buffer.data = buffer.data[: -(-len(buffer.data) // 2)]

    network = flatbuffer.read(edited(pack_weights))
    assert network.tensors[network.ops[0].inputs[1]].dtype == "int4"
    with pytest.raises(UnsupportedModelError, match="Received: int4, int8"):
        arena.plan(network)


@pytest.mark.parametrize("code", [schema.TensorType.STRING, 77])
def test_a_value_without_a_size_has_no_memory_plan(code):
    def retype(model):
        graph_of(model).tensors[graph_of(model).outputs[0]].type = code

    network = flatbuffer.read(edited(retype))
    with pytest.raises(UnsupportedModelError, match=r"of (string|type 77)\. Next"):
        arena.plan(network)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_reading_agrees_with_the_schema_s_own_classes(path):
    data = path.read_bytes()
    network = flatbuffer.read(data)
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data)).subgraphs[0]
    for tensor, theirs in zip(network.tensors, graph.tensors, strict=True):
        assert tensor.name == theirs.name.decode()
        assert tensor.shape == tuple([] if theirs.shape is None else theirs.shape)
        if tensor.scales.size:
            assert np.array_equal(tensor.scales, theirs.quantization.scale)
            assert np.array_equal(tensor.zero_points, theirs.quantization.zeroPoint)
    for op, theirs in zip(network.ops, graph.operators, strict=True):
        assert op.inputs == tuple(theirs.inputs)
        assert op.outputs == tuple(theirs.outputs)
        if op.kind == "CONV_2D":
            options = theirs.builtinOptions
            assert op.options["stride_h"] == options.strideH
            assert op.options["stride_w"] == options.strideW
    assert network.file_problems == firmware.firmware_problems(network) == ()


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_file_gives_a_plan_or_an_error_that_is_documented(seed):
    files = [
        mutants.with_weights(data, flatbuffer.read(data))
        for data in (path.read_bytes() for path in FILES)
    ]
    outcomes = [outcome(data) for data in mutants.mutants(files, MUTANTS, seed)]
    plans = [result for result in outcomes if isinstance(result, int)]
    assert min(plans) > 512
    assert 0.1 < len(plans) / MUTANTS < 0.9


def test_damage_does_not_take_memory():
    file = [mutants.with_weights(SEP, flatbuffer.read(SEP))]
    tracemalloc.start()
    for data in mutants.mutants(file, 200, seed=99):
        outcome(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * len(SEP) + 1_000_000


def outcome(data):
    """The RAM of a file, or the type of error; other errors are not caught."""
    try:
        network = flatbuffer.read(data)
        firmware.firmware_problems(network)
        return arena.plan(network).ram_bytes
    except (ModelFileError, UnsupportedModelError) as error:
        return type(error)


def test_the_mutants_are_the_same_on_every_run():
    file = [mutants.with_weights(SEP, flatbuffer.read(SEP))]
    one, other = (list(mutants.mutants(file, 20, seed=3)) for _ in range(2))
    assert one == other
    assert any(a != b for a, b in itertools.pairwise(one))
