"""Turns the calls of a Keras model into the steps of a `Graph`.

What each layer is on the camera stands in layers.py; here stands what joins what:
preprocessing joins the input, batch normalization and ReLU join what they follow,
and padding joins the convolution behind it.
"""

import dataclasses
from typing import Any

import keras

from keras_omv import calls, layers
from keras_omv.errors import UnsupportedModelError
from keras_omv.graph import WEIGHTED, Graph, Step
from keras_omv.tracing import Call, Trace, trace

_TAKES_ACTIVATION = WEIGHTED | {"affine", "add"}


def build_graph(model: Any) -> Graph:
    """Lists the steps that a model takes on the camera.

    Args:
        model: A built Functional or Sequential Keras 3 model with one image
            input of shape `(batch, height, width, channels)` and one output of
            shape `(batch, classes)`.

    Returns:
        The steps, holding the model's own layers and variables.

    Raises:
        UnsupportedModelError: If the model or a layer cannot run on the camera;
            the message names the layers.
    """
    return _Fuser(trace(model)).graph()


class _Fuser:
    """Walks the calls once: each becomes steps or joins those of another."""

    def __init__(self, traced: Trace) -> None:
        self._trace = traced
        self._readers: dict[int, list[Call]] = {}
        for call in traced.calls:
            for value in set(call.inputs):
                self._readers.setdefault(value, []).append(call)
        self._shapes: dict[int, tuple[int, ...]] = {0: traced.input_shape}
        self._steps: dict[int, Step] = {}
        self._joined: set[int] = set()
        self._values = len(traced.calls)

    def graph(self) -> Graph:
        layers.check_supported(self._trace.calls)
        preprocessing, scale, offset, value = self._preprocessing()
        for call in self._trace.calls:
            if call.output not in self._joined:
                self._emit(call)
        if not any(step.kind in WEIGHTED for step in self._steps.values()):
            raise UnsupportedModelError(
                "Expected a model with a convolution or a dense layer. "
                "Received: one without weights."
            )
        return Graph(
            steps=tuple(self._steps.values()),
            preprocessing=preprocessing,
            input_scale=scale,
            input_offset=offset,
            input_shape=self._trace.input_shape,
            input_value=value,
            output=self._trace.output,
            output_units=self._trace.output_units,
        )

    def _preprocessing(self) -> tuple[tuple[Any, ...], float, float, int]:
        """Follows rescaling and augmentation from the input to the first step."""
        taken: list[Any] = []
        scale, offset, value = 1.0, 0.0, 0
        while (call := self._only_reader(value)) is not None:
            affine = calls.uniform_affine(call)
            if affine is None:
                break
            self._check_shape(call, value)
            scale, offset = scale * affine[0], offset * affine[0] + affine[1]
            taken.append(calls.as_callable(call))
            self._joined.add(call.output)
            self._shapes[call.output] = self._shapes[value]
            value = call.output
        if scale <= 0:
            raise UnsupportedModelError(
                "Expected preprocessing that keeps bright pixels bright. Received: "
                f"pixels are multiplied by {scale}. Invert the images instead."
            )
        return tuple(taken), scale, offset, value

    def _check_shape(self, call: Call, value: int) -> None:
        """What the camera leaves out must not change the image's size."""
        if not isinstance(call.operation, keras.Layer):
            return
        shape = self._shapes[value]
        made = call.operation.compute_output_shape((None, *shape))[1:]
        if tuple(made) != tuple(shape):
            raise UnsupportedModelError(
                f"Expected preprocessing that keeps the shape {shape}. Received: "
                f"{call.name!r} ({call.kind}), which makes {tuple(made)} of it. Next "
                "step: put it into the dataset, as dataset.map(...)."
            )

    def _emit(self, call: Call) -> None:
        self._check_placed(call)
        shapes = [self._shapes[value] for value in call.inputs]
        steps = layers.steps_of(call, shapes, self._new_value)
        steps[0] = self._join_padding(steps[0], call)
        if steps[-1].kind in _TAKES_ACTIVATION:
            steps[-1] = self._join_followers(steps[-1])
        for step in steps:
            self._steps[step.output] = step
            self._shapes[step.output] = step.shape

    def _check_placed(self, call: Call) -> None:
        """Arithmetic with a number is understood at the input only."""
        if None in call.constants and call.constants.count(None) == len(call.constants):
            return
        raise UnsupportedModelError(
            "Expected arithmetic with numbers directly at the model's input. "
            f"Received: {call.name!r} ({call.kind}) further on. Move it to the front "
            "or use a BatchNormalization."
        )

    def _join_padding(self, step: Step, call: Call) -> Step:
        """Joins a ZeroPadding2D that equals a convolution's "same" padding."""
        pad = self._steps.get(step.inputs[0])
        if pad is None or pad.kind != "pad" or step.kind not in ("conv", "depthwise"):
            return step
        source = self._shapes[pad.inputs[0]]
        alone = self._only_reader(pad.output) is call and step.padding == "valid"
        if not alone or pad.pads != same_pads(step, source):
            return step
        del self._steps[pad.output]
        return dataclasses.replace(step, inputs=pad.inputs, padding="same")

    def _join_followers(self, step: Step) -> Step:
        """Joins the batch normalization and the ReLU that alone read a step."""
        reader = self._only_reader(step.output)
        takes_norm = step.kind in WEIGHTED and step.activation == "linear"
        if takes_norm and reader is not None and reader.kind == "BatchNormalization":
            layers.check_last_axis(reader, step.shape)
            step = dataclasses.replace(
                step,
                batch_norm=reader.operation,
                output=reader.output,
            )
            self._joined.add(reader.output)
            reader = self._only_reader(step.output)
        name = calls.relu_name(reader) if reader is not None else None
        if reader is None or name is None or step.activation != "linear":
            return step
        self._joined.add(reader.output)
        return dataclasses.replace(step, activation=name, output=reader.output)

    def _only_reader(self, value: int) -> Call | None:
        readers = self._readers.get(value, [])
        if len(readers) != 1 or value == self._trace.output:
            return None
        return readers[0]

    def _new_value(self) -> int:
        self._values += 1
        return self._values


def same_pads(
    step: Step, source: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding that "same" adds to a convolution's input.

    Args:
        step: A convolution; its kernel, strides and dilation count.
        source: Shape `(height, width, channels)` of what would be padded.

    Returns:
        `((top, bottom), (left, right))`, as TensorFlow pads: the odd one goes to
        the bottom and the right.
    """
    pads = []
    for axis in range(2):
        reach = (step.kernel.shape[axis] - 1) * step.dilation[axis] + 1
        outputs = -(-source[axis] // step.strides[axis])
        total = max((outputs - 1) * step.strides[axis] + reach - source[axis], 0)
        pads.append((total // 2, total - total // 2))
    return (pads[0], pads[1])
