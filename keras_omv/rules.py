"""The firmware's rules, all of them: what a camera refuses, hangs on or misreads.

`network_violations` judges a network, `file_violations` the bytes that it is read
from, `name_violations` the file's name and its labels. The rules of loading are in
`keras_omv.firmware`, those of arithmetic and shapes in `keras_omv.ranges` and
`keras_omv.shapes`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal

from keras_omv import neuralart
from keras_omv.errors import ModelFileError
from keras_omv.firmware import AGAIN, Violation, load_violations, release
from keras_omv.network import Network, Tensor
from keras_omv.ranges import range_violations
from keras_omv.reader import read
from keras_omv.shapes import shape_violations
from keras_omv.tables import Table, Tables

Severity = Literal["error", "warning"]
"""What files compiled for the N6's accelerator start with (tools/modelc.py@v5.0.0)."""
NEEDS_NEURAL_ART = "OPENMV_N6"
USUAL_INPUT_RANGES = (
    (0.0, 255.0),
    (0.0, 1.0),
    (-1.0, 1.0),
    (-0.5, 0.5),
    (-128.0, 127.0),
)
"""What pixels 0 and 255 are in models as people train them."""
INPUT_RANGE_TOLERANCE = 0.01
"""Of the range: about what a zero point that is rounded takes twice."""
_OUTPUT_TYPES = ("int8", "uint8", "int16", "uint16", "float32")
"""lib/tflm/tflm_backend.cc@v5.0.0:88, ml_backend_valid_dataype."""
_LEAST_ALIGNMENT = 4
"""The widest load of the Cortex-M that must be aligned; 4 was seen to run, 2 and 1
to end in a hard fault."""
_FLOAT_INPUT_BROKEN = ((4, 5, 6), (4, 8, 0))
"""From which release to which a float input gets pixels without normalization."""


def network_violations(
    network: Network,
    *,
    firmware: str = "5.0",
    target: str | None = None,
    input_ranges: Sequence[tuple[float, float]] = (),
) -> tuple[Violation, ...]:
    """Find what keeps a camera from running a network as it should.

    Args:
        network: The network.
        firmware: The release, such as `"5.0"` or `"v4.5.5"`; 4.5.0 or later.
        target: The firmware's name of the camera. Defaults to `None`, any camera.
        input_ranges: What pixels 0 and 255 may be where they enter the model, as
            pairs; empty to allow any. Defaults to empty.

    Returns:
        The violations, each once. Shapes and scales are judged only where the
        firmware has all operators and types; memory is not judged here.

    Raises:
        ValueError: For a release that is older or is no release.
    """
    network = _named(network)
    found = list(load_violations(network, firmware=firmware, target=target))
    if not found:
        found += shape_violations(network)
    if not found:
        found += range_violations(network)
    found += _interface_violations(network, firmware)
    if input_ranges:
        found += _pin_violations(network.input, input_ranges)
    return tuple(dict.fromkeys(found))


def _named(network: Network) -> Network:
    """Give tensors without a name, as our files have them, their number."""
    tensors = (
        tensor if tensor.name else dataclasses.replace(tensor, name=f"#{index}")
        for index, tensor in enumerate(network.tensors)
    )
    return dataclasses.replace(network, tensors=tuple(tensors))


def file_violations(data: bytes, *, target: str | None = None) -> tuple[Violation, ...]:
    """Find what keeps a camera from reading a file, before its network is judged.

    Args:
        data: The file's bytes.
        target: The firmware's name of the camera. Defaults to `None`, any camera.
    """
    if data.startswith(neuralart.COMPILED_MARK):
        what = "the file is compiled for the N6's accelerator and cannot be judged here"
        return (Violation("file", what, "verify the file it was compiled from"),)
    if target == NEEDS_NEURAL_ART:
        what = "the N6 loads compiled models only, and this is a plain .tflite file"
        remedy = (
            "compile it with OpenMV IDE or stedgeai; for what it does before that, "
        )
        return (Violation("compiler", what, remedy + "verify it for another board"),)
    try:
        read(data)
        return tuple(_alignment_violations(data))
    except ModelFileError as error:
        what, _, remedy = str(error).partition(" Next step: ")
        return (Violation("file", what.rstrip("."), remedy.rstrip(".")),)


def name_violations(
    path: pathlib.Path, network: Network | None = None
) -> tuple[Violation, ...]:
    """Find what keeps a camera from finding a file's labels.

    `ml.Model` looks for them under the model's path up to its first dot
    (scripts/libraries/ml/ml-core/ml/model.py@v5.0.0:38) and takes lines apart at
    line feeds alone.

    Args:
        path: The .tflite file; labels are looked for beside it.
        network: What it holds, to compare labels with outputs. Defaults to `None`.

    Returns:
        Errors where the camera would miss or misread the labels of a classifier;
        warnings where a file may be the labels of something else.
    """
    stem = path.name.split(".")[0]
    labels = path.with_name(f"{stem}.txt")
    found: list[Violation] = []
    if path.name.count(".") != 1 or not stem:
        found.append(_name_violation(path, labels.name))
    if labels.is_file():
        sure = network is not None and _is_classifier(network)
        found += _labels_violations(labels, network, "error" if sure else "warning")
    other = path.with_name("labels.txt")
    if other != labels and other.is_file():
        found += _labels_violations(other, network, "warning")
    return tuple(found)


def _name_violation(path: pathlib.Path, looked_for: str) -> Violation:
    what = (
        f"the camera looks for the labels of {path.name!r} in {looked_for!r}, the name "
        f"up to its first dot"
    )
    meant = path.with_suffix(".txt")
    is_missed = meant.name != looked_for and meant.is_file()
    severity: Severity = "error" if is_missed else "warning"
    return Violation("name", what, "rename it, with one dot, to model.tflite", severity)


def _is_classifier(network: Network) -> bool:
    """Whether it has one output, of scores: what labels can be compared with."""
    return len(network.outputs) == 1 and len(network.output.shape) == 2


def _labels_violations(
    path: pathlib.Path, network: Network | None, severity: Severity
) -> Iterator[Violation]:
    text = path.read_bytes().decode("utf-8", "replace")
    if "\r" in text:
        what = (
            f"{path.name} has lines that end with a carriage return, which labels keep"
        )
        remedy = "save it with the line ends of Unix"
        yield Violation("labels", what, remedy, severity)
    if network is None:
        return
    count = len(text.removesuffix("\n").split("\n"))
    expected = max(2, network.output.shape[-1] if network.output.shape else 0)
    if count != expected:
        what = f"{path.name} has {count} labels for {expected} classes"
        remedy = "write one label a line, in the model's order"
        yield Violation("labels", what, remedy, severity)


def _interface_violations(network: Network, firmware: str) -> Iterator[Violation]:
    source = network.input
    if len(source.shape) != 4 or source.shape[3] not in (1, 3):
        what = f"input of shape {source.shape}, not (1, h, w, 1 or 3), takes no image"
        yield Violation("input", what, "train on grey or RGB images")
    for index in network.outputs:
        output = network.tensors[index]
        if output.dtype not in _OUTPUT_TYPES:
            what = f"output {output.name!r} is {output.dtype}, which ml.Model refuses"
            yield Violation("output", what, AGAIN)
    first, fixed = _FLOAT_INPUT_BROKEN
    if source.dtype == "float32" and first <= release(firmware) < fixed:
        what = (
            f"firmware {firmware} gives float inputs pixels from 0 to 255 as they are"
        )
        yield Violation("input", what, "update the camera, or convert to int8")
    yield from _integer_violations(network)


def _integer_violations(network: Network) -> Iterator[Violation]:
    others = [tensor for tensor in network.tensors if not _is_integer(tensor)]
    if others:
        first = others[0]
        what = (
            f"{len(others)} of {len(network.tensors)} tensors are not int8, the first "
            f"{first.name!r} of {first.dtype}: slower, and larger, than int8 would be"
        )
        yield Violation("int8", what, AGAIN, severity="warning")


def _is_integer(tensor: Tensor) -> bool:
    return tensor.dtype in ("int8", "int32")


def _pin_violations(
    source: Tensor, input_ranges: Sequence[tuple[float, float]]
) -> Iterator[Violation]:
    """Compare what the input's scale says of pixels with what the camera gives.

    It gives pixel - 128 as int8, the pixel as uint8, and never looks at the scale
    (lib/imlib, py_image.c:612-788@v5.0.0).
    """
    offset = {"int8": -128, "uint8": 0}.get(source.dtype)
    if offset is None or not (source.scales.size and source.zero_points.size):
        return
    scale, zero_point = float(source.scales[0]), int(source.zero_points[0])
    low, high = ((pixel + offset - zero_point) * scale for pixel in (0, 255))
    if any(_is_near((low, high), usual) for usual in input_ranges):
        return
    expected = " or ".join(f"{a:g} to {b:g}" for a, b in input_ranges)
    what = (
        f"input {source.name!r} takes pixels 0 to 255 as {low:.4g} to {high:.4g}, not "
        f"as {expected}: the camera gives pixels as they are, whatever images the "
        f"range was calibrated on"
    )
    remedy = "pin the input's range, as omv.export does, or say which one was trained"
    yield Violation("input pin", what, remedy)


def _is_near(found: tuple[float, float], usual: tuple[float, float]) -> bool:
    tolerance = INPUT_RANGE_TOLERANCE * (usual[1] - usual[0])
    return all(abs(a - b) <= tolerance for a, b in zip(found, usual, strict=True))


def _alignment_violations(data: bytes) -> Iterator[Violation]:
    """Find vectors that lie where a Cortex-M cannot load from them.

    TFLM computes on weights, scales, zero points and shapes where they lie in the
    file.
    """
    model = Tables(data).root()
    graph = model.tables(2)[0]
    places = [(f"buffer {i}", t.start(0)) for i, t in enumerate(model.tables(4))]
    for index, tensor in enumerate(graph.tables(0)):
        places.append((f"the shape of tensor {index}", tensor.start(0)))
        places += _scale_places(index, tensor)
    for index, op in enumerate(graph.tables(3)):
        places += [
            (f"the list {slot} of operator {index}", op.start(slot)) for slot in (1, 2)
        ]
    for name, place in places:
        if place % _LEAST_ALIGNMENT:
            what = (
                f"{name} lies at byte {place}, not at a multiple of "
                f"{_LEAST_ALIGNMENT}: the camera ends in a hard fault"
            )
            yield Violation("alignment", what, AGAIN)
            return


def _scale_places(index: int, tensor: Table) -> list[tuple[str, int]]:
    quantization = tensor.table(4)
    if quantization is None:
        return []
    return [
        (f"the scale of tensor {index}", quantization.start(2)),
        (f"the zero point of tensor {index}", quantization.start(3)),
    ]
