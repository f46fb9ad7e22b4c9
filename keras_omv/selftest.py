"""A check that runs on the camera: a script, a few frames, and the right answers.

What is fed is the input tensor itself where the firmware allows: `predict` calls a
function with the tensor's bytes from 4.5.6 on (src/omv/modules/py_ml.c:63-70). The tf
module before takes pictures only; one of the model's own size is not scaled
(imlib/draw.c:2662 at 4.2.0, 3157 at 4.5.5; py_tf.c:231 at 4.0.0 takes the nearest
pixel), and its RGB565 pixels are the same bytes again. All frames are such pixels.
"""

import dataclasses

import numpy as np

from keras_omv import flatbuffer, verify
from keras_omv.boards import NEEDS_COMPILER
from keras_omv.camera import from_rgb565, to_rgb565
from keras_omv.deploy import SELFTEST_FILES
from keras_omv.frames import as_inputs, probe_inputs
from keras_omv.network import Network
from keras_omv.scripts import render_script

SCRIPT_FILE, DATA_FILE = SELFTEST_FILES
MOST_FRAMES = 6
MOST_BYTES = 64 << 10
"""Of selftest.bin with more than one frame: drives may have no more than 96 KiB."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selftest:
    """The two files of a check, and what they hold.

    Attributes:
        script: The text of selftest.py.
        data: The bytes of selftest.bin: of each frame the int8 input, then the
            expected int8 outputs.
        frame_count: How many frames that are.
        runtime: What computed the outputs, `verify.TFLM` or `verify.LITERT`.
    """

    script: str
    data: bytes
    frame_count: int
    runtime: str

    @property
    def tolerance(self) -> int:
        """Steps that an output may be off: none, unless TFLM is not installed here."""
        return 0 if self.runtime == verify.TFLM else 1


def make_selftest(
    model: bytes, *, board: str, firmware: str, compiled: bytes | None = None
) -> Selftest:
    """Make a check of one camera.

    Example:

    ```python
    from keras_omv.selftest import make_selftest

    found = make_selftest(model, board="openmv-h7", firmware="5.0")
    pathlib.Path("selftest.py").write_text(found.script)
    pathlib.Path("selftest.bin").write_bytes(found.data)
    ```

    Args:
        model: The bytes of model.tflite, of which an image is the only input.
        board: The camera's name.
        firmware: Its release.
        compiled: The model as compiled for the camera's NPU, which may be on the
            camera instead. Defaults to `None`: there is no such file.

    Raises:
        ValueError: If the camera does not run the model itself, or there is no script
            for that firmware.
        ModelFileError: If the model cannot be read.
        ExportError: If it does not run here.
    """
    if board == NEEDS_COMPILER:
        raise ValueError(
            f"There is no selftest for {board}: its NPU runs what stedgeai compiles, "
            f"which rounds as ST chose. Expected a camera that computes as TFLM does. "
            f"Received: {board}. Next step: compare classes on pictures instead."
        )
    network = flatbuffer.read(model)
    pixels = _camera_pixels(network)
    scores = verify.run_network(network, pixels)
    chosen = _choose(scores.values, most=_most_frames(network))
    made = Selftest(
        script="",
        data=_data(pixels[chosen], scores.values[chosen]),
        frame_count=len(chosen),
        runtime=scores.runtime,
    )
    sizes = tuple(len(file) for file in (model, compiled) if file is not None)
    script = _script(network, made, model_bytes=sizes, firmware=firmware)
    return dataclasses.replace(made, script=script)


def _camera_pixels(network: Network) -> np.ndarray:
    """Frames of shape `(frames, height, width, channels)` that RGB565 can hold."""
    (inputs,) = probe_inputs(network)
    pixels: np.ndarray = inputs[:, 0].view("uint8") ^ np.uint8(0x80)
    is_colour = pixels.shape[-1] == 3
    return from_rgb565(to_rgb565(pixels)) if is_colour else pixels


def _most_frames(network: Network) -> int:
    frame_bytes = network.input.size_bytes + network.output.size_bytes
    return max(1, min(MOST_FRAMES, MOST_BYTES // frame_bytes))


def _choose(scores: np.ndarray, *, most: int) -> list[int]:
    """Take frames that differ: one of each class first, then others, busy ones first.

    The plain frames come first in `probe_inputs`, the telling ones last.
    """
    order = list(range(len(scores)))[::-1]
    classes: dict[int, int] = {}
    for frame in order:
        classes.setdefault(int(np.argmax(scores[frame])), frame)
    firsts = list(classes.values())
    return [*firsts, *(frame for frame in order if frame not in firsts)][:most]


def _data(pixels: np.ndarray, scores: np.ndarray) -> bytes:
    inputs = as_inputs(pixels, "int8")
    pairs = zip(inputs, scores, strict=True)
    return b"".join(one.tobytes() + answer.tobytes() for one, answer in pairs)


def _script(
    network: Network, made: Selftest, *, model_bytes: tuple[int, ...], firmware: str
) -> str:
    _, height, width, channels = network.input.shape
    return render_script(
        "selftest.py.jinja",
        firmware=firmware,
        model_bytes=model_bytes,
        frame_count=made.frame_count,
        width=width,
        height=height,
        channels=channels,
        outputs=network.output.shape[-1],
        scale=float(network.output.scales[0]),
        zero_point=int(network.output.zero_points[0]),
        tolerance=made.tolerance,
    )
