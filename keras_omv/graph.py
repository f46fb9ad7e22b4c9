"""The steps that a model takes on the camera: its calls, fused as TFLite fuses.

A convolution takes its batch normalization and ReLU along, padding joins the
convolution behind it where the two equal "same" padding, augmentation and
rescaling at the input become the input's quantization. Every step holds the
user's own layers and variables. Training with fake quantization, pruning, costs
and export all follow this one list.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

# Layers whose output has the quantization of their input.
PASSING = frozenset(
    {"identity", "max_pool", "average_pool", "global_max", "pad", "reshape"}
)
# Layers with a fixed output quantization, and those with none of their own.
FIXED = frozenset({"softmax", "sigmoid", "tanh"})
WEIGHTED = frozenset({"conv", "depthwise", "dense"})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One fused operation.

    Attributes:
        kind: `"conv"`, `"depthwise"`, `"dense"`, `"affine"`, `"add"`, `"concat"`,
            `"mean"`, `"relu"`, or one of `PASSING` and `FIXED`.
        name: The name of the user's layer, nested models in front.
        inputs: Numbers of the values that go in; the model's input is 0.
        output: Number of the value that comes out.
        shape: Shape of the output without the batch.
        layer: The user's layer, `None` for a part of one.
        kernel: The variable of the weights, shape `(h, w, in, out)`,
            `(h, w, in, multiplier)` or `(in, out)`.
        bias: The variable of the bias, shape `(out,)`, if any.
        batch_norm: The `BatchNormalization` behind it, if any.
        activation: `"linear"`, `"relu"` or `"relu6"`.
        padding: `"same"` or `"valid"`.
        strides: Of convolutions and pools.
        window: Size of a pool's window.
        dilation: Of convolutions.
        pads: `((top, bottom), (left, right))` of a padding.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    output: int
    shape: tuple[int, ...]
    layer: Any = None
    kernel: Any = None
    bias: Any = None
    batch_norm: Any = None
    activation: str = "linear"
    padding: str = "valid"
    strides: tuple[int, int] = (1, 1)
    window: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    @property
    def per_channel(self) -> bool:
        """Whether its weights have a scale for each output channel.

        TFLM up to firmware 4.8.1 rejects per-channel FULLY_CONNECTED. A dense
        layer with a batch normalization becomes a 1x1 convolution instead, for
        which a scale per channel is what lets the two be folded exactly.
        """
        return self.kind != "dense" or self.batch_norm is not None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A model as the camera runs it.

    Attributes:
        steps: In the order of execution.
        preprocessing: The user's layers between the model's input and the first
            step (rescaling and augmentation), as callables.
        input_scale: With `input_offset`, what the rescaling among them does to a
            value x: `input_scale * x + input_offset`.
        input_offset: See `input_scale`.
        input_shape: `(height, width, channels)`.
        input_value: Number of the value that the first steps read.
        output: Number of the value that the model returns.
        output_units: Size of what the model returns, the number of its scores.
    """

    steps: tuple[Step, ...]
    preprocessing: tuple[Any, ...]
    input_scale: float
    input_offset: float
    input_shape: tuple[int, int, int]
    input_value: int
    output: int
    output_units: int

    @property
    def weighted_steps(self) -> Iterator[Step]:
        """The steps that have a kernel."""
        return (step for step in self.steps if step.kind in WEIGHTED)

    @property
    def output_kind(self) -> str:
        """What makes the scores: a kind of `FIXED`, or another for logits."""
        steps = {step.output: step for step in self.steps}
        step = steps.get(self.output)
        while step is not None and step.kind in ("identity", "reshape"):
            step = steps.get(step.inputs[0])
        return "" if step is None else step.kind

    def consumers(self, value: int) -> list[Step]:
        """The steps that read a value."""
        return [step for step in self.steps if value in step.inputs]

    def range_owners(self) -> dict[int, int]:
        """For each value, the value whose range it shares.

        Pools, padding and reshapes keep the quantization of their input. TFLM's
        CONCATENATION takes inputs of one quantization: a value that only a
        concatenation reads takes the concatenation's.
        """
        owners = {self.input_value: self.input_value}
        for step in self.steps:
            passing = step.kind in PASSING
            owners[step.output] = owners[step.inputs[0]] if passing else step.output
        producers = {step.output: step for step in self.steps}
        for step in reversed(self.steps):
            if step.kind == "concat":
                self._share(step, producers, owners)
        return owners

    def _share(
        self, concat: Step, producers: dict[int, Step], owners: dict[int, int]
    ) -> None:
        for value in concat.inputs:
            chain = [value]
            step = producers.get(value)
            while step and step.kind in PASSING and step.kind != "average_pool":
                chain.append(step.inputs[0])
                step = producers.get(step.inputs[0])
            alone = all(len(self.consumers(link)) == 1 for link in chain)
            # A ReLU6 of its own needs a range that ends at 6, see convert.py.
            clips = step is not None and (step.kind, step.activation) == (
                "relu",
                "relu6",
            )
            if step is None or step.kind in PASSING | FIXED or clips or not alone:
                continue
            for link in chain:
                owners[link] = owners[concat.output]
