"""Changes to .tflite files through the schema's own classes, the same on every run."""

import random

import flatbuffers
import mutants
from ai_edge_litert import schema_py_generated as schema


def edited(data, change):
    """A file after a change to its object tree."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    change(model)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def with_offset_buffers(data):
    """A file with all its weights behind the flatbuffer, as ai-edge-quantizer writes.

    Args:
        data: A file with its weights inside.
    """
    marks, contents = [], []

    def move(model):
        for buffer in model.buffers:
            if buffer.data is None or not len(buffer.data):
                continue
            # A number of the right size first, so that no place moves.
            marks.append(2**40 + 1 + len(marks))
            contents.append(bytes(buffer.data))
            buffer.data, buffer.offset = None, marks[-1]
            buffer.size = len(contents[-1])

    file = edited(data, move)
    for mark, content in zip(marks, contents, strict=True):
        file += bytes(-len(file) % 16)
        offset = len(file).to_bytes(8, "little")
        file = file.replace(mark.to_bytes(8, "little"), offset) + content
    return file


def change_field(model, random_):
    """Set one number of one operator's options, or one tensor's type or shape."""
    graph = model.subgraphs[0]
    tensor = random_.choice(graph.tensors)
    options = random_.choice(graph.operators).builtinOptions
    kind = random_.randrange(4)
    if kind == 0 and options is not None:
        name = random_.choice(sorted(vars(options)) or [""])
        value = getattr(options, name, None)
        if isinstance(value, bool):
            setattr(options, name, not value)
        elif isinstance(value, int | float):
            setattr(options, name, random_.choice((0, 1, 2, 3, 7, 100)))
    elif kind == 1:
        tensor.type = random_.randrange(20)
    elif tensor.shape is not None and len(tensor.shape):
        shape = list(map(int, tensor.shape))
        place = random_.randrange(len(shape))
        shape[place] = random_.choice((0, 1, 2, shape[place] * 2, shape[place] + 1))
        tensor.shape = shape


def change_wires(model, random_):
    """Let one operator read or write another tensor, or let one out."""
    graph = model.subgraphs[0]
    op = random_.choice(graph.operators)
    wires = list(map(int, random_.choice((op.inputs, op.outputs))))
    wires[random_.randrange(len(wires))] = random_.randrange(-1, len(graph.tensors))
    if random_.random() < 0.5:
        op.inputs = wires
    else:
        op.outputs = wires


def swap_buffers(model, random_):
    """Let two tensors have each other's values."""
    one, other = random_.sample(model.subgraphs[0].tensors, 2)
    one.buffer, other.buffer = other.buffer, one.buffer


def change_operator(model, random_):
    """Make all operators of a kind another kind."""
    code = random_.choice(model.operatorCodes)
    code.builtinCode = random_.randrange(0, 160)
    code.deprecatedBuiltinCode = min(127, code.builtinCode)


def change_range(model, random_):
    """Collapse, blow up or take away one tensor's scale, or move its zero point."""
    tensors = [t for t in model.subgraphs[0].tensors if t.quantization is not None]
    quantization = random_.choice(tensors).quantization
    if quantization.scale is None:
        return
    size = len(quantization.scale)
    kind = random_.randrange(4)
    if kind == 0:
        quantization.zeroPoint = [random_.choice((-129, -128, 0, 5, 200))] * size
    elif kind == 1:
        quantization.scale = None
    else:
        scales = (0.0, -1.0, 1e-38, 1e-30, 1e-9, 1e9, float("inf"), float("nan"))
        quantization.scale = [random_.choice(scales)] * size


def empty_weights(model, random_):
    """Zero or drop one buffer's bytes."""
    buffers = [b for b in model.buffers if b.data is not None and len(b.data)]
    buffer = random_.choice(buffers)
    buffer.data = bytes(len(buffer.data)) if random_.random() < 0.5 else None


EDITS = (
    *(change_field, change_wires, swap_buffers),
    *(change_operator, change_range, empty_weights),
)


def damaged(files, count, seed=0):
    """Yield `count` damaged files: half by their bytes, half through the schema.

    Args:
        files: As for `mutants.mutants`.
        count: How many.
        seed: Decides them all.
    """
    random_ = random.Random(seed)
    yield from mutants.mutants(files, count // 2, seed)
    for _ in range(count - count // 2):
        data, _ = random_.choice(files)
        edit = random_.choice(EDITS)
        yield edited(data, lambda model, edit=edit: edit(model, random_))
