"""What a network costs on a camera: flash, RAM, multiply-accumulates, time.

Flash and RAM are exact. The time is an estimate: two terms, multiply-accumulates
and values written, fitted to published measurements of X-CUBE-AI and scaled to the
camera's TFLM with CMSIS-NN. Sizes are bytes (KiB is 1024), times milliseconds.
"""

import dataclasses
import math
from typing import NamedTuple

from keras_omv.arena import Arena, plan
from keras_omv.boards import Board, Budget
from keras_omv.network import Network


class PublishedRow(NamedTuple):
    """One measurement of an int8 model, X-CUBE-AI on an STM32H747 at 400 MHz."""

    model: str
    macs: int
    written_values: int
    latency_ms: float


PUBLISHED_CLOCK_HZ = 400_000_000
# github.com/STMicroelectronics/stm32ai-modelzoo, image_classification/mobilenetv1 and
# mobilenetv2, README.md at 6f10965e: model, input, classes and time. The counts follow
# from the architectures of keras.applications.
PUBLISHED_ROWS = (
    PublishedRow("MobileNetV1 0.25, 224x224x3, 5", 40_775_552, 1_260_933, 163.78),
    PublishedRow("MobileNetV1 0.5, 224x224x3, 5", 148_987_648, 2_521_861, 485.79),
    PublishedRow("MobileNetV1 0.25, 96x96x3, 5", 7_490_432, 231_813, 29.94),
    PublishedRow("MobileNetV1 0.25, 96x96x1, 5", 7_158_656, 231_813, 28.34),
    PublishedRow("MobileNetV1 0.25, 224x224x3, 1000", 41_030_272, 1_261_928, 166.75),
    PublishedRow("MobileNetV1 0.5, 224x224x3, 1000", 149_497_088, 2_522_856, 504.37),
    PublishedRow("MobileNetV1 1.0, 224x224x3, 1000", 568_740_352, 5_044_712, 1641.84),
    PublishedRow("MobileNetV2 0.35, 128x128x3, 5", 18_947_072, 962_949, 94.34),
    PublishedRow("MobileNetV2 0.35, 224x224x3, 5", 58_012_208, 2_946_381, 290.75),
    PublishedRow("MobileNetV2 0.35, 128x128x3, 1000", 20_220_672, 963_944, 116.13),
    PublishedRow("MobileNetV2 0.35, 224x224x3, 1000", 59_285_808, 2_947_376, 313.92),
    PublishedRow("MobileNetV2 1.0, 224x224x3, 1000", 300_774_272, 6_896_776, 1106.64),
    PublishedRow("MobileNetV2 1.4, 224x224x3, 1000", 582_195_824, 9_878_840, 2010.66),
)

# Least squares of the relative error over PUBLISHED_ROWS.
CYCLES_PER_MAC = 0.957368
CYCLES_PER_WRITTEN_VALUE = 21.970210
LEAVE_ONE_OUT_ERROR = 0.0376
"""Mean relative error on a row that the fit has not seen."""
LEAVE_ONE_OUT_WORST = 0.1464
"""The largest such error."""

TFLM_SLOWDOWN = 43 / 29
"""TFLM with CMSIS-NN against X-CUBE-AI: MobileNetV2 0.3 at 64 px takes 43 and 29 ms on
an STM32H743 (TinyEngine's published comparison)."""
SLOWEST = 1.46
"""The 43 ms of that row over the estimate for it, taken with 2 classes."""
FASTEST_M55 = 0.25
"""The Cortex-M55's Helium works on 16 int8 values where the M7 works on 4. Nothing is
published for CMSIS-NN on these cameras: a judgement, which bounds the range only."""
DEFAULT_CLOCK_HZ = 480_000_000
"""The OpenMV Cam H7's, where no board is named."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What one network costs.

    Attributes:
        flash_bytes: The size of the .tflite file.
        ram_bytes: What `ml.Model(...).ram` reports.
        macs: Multiply-accumulates of one inference.
        parameters: Weights and biases.
        latency_ms: Estimated time of one inference on the CPU, the arena in fast
            memory; external RAM is slower.
        latency_range_ms: The estimate's lower and upper bound.
        arena: Where the RAM goes, or `None` where it was not computed.
    """

    flash_bytes: int
    ram_bytes: int
    macs: int
    parameters: int
    latency_ms: float
    latency_range_ms: tuple[float, float]
    arena: Arena | None = dataclasses.field(default=None, repr=False)


def cost_of(
    network: Network, *, flash_bytes: int, board: Board | Budget | None = None
) -> Cost:
    """Compute what a network costs.

    Args:
        network: The int8 network.
        flash_bytes: The size of its .tflite file.
        board: The camera, which decides the core and its clock. Defaults to a
            Cortex-M7 at 480 MHz, as does a `Budget`.

    Raises:
        UnsupportedModelError: For an operation whose memory is not known, or one
            that the camera refuses.
    """
    core = board.core if board is not None else "cortex-m7"
    clock_hz = board.clock_hz if isinstance(board, Board) else DEFAULT_CLOCK_HZ
    planned = plan(network, core)
    macs = network.macs
    latency_ms = estimate_latency_ms(macs, written_values(network), clock_hz)
    return Cost(
        flash_bytes=flash_bytes,
        ram_bytes=planned.ram_bytes,
        macs=macs,
        parameters=network.parameters,
        latency_ms=latency_ms,
        latency_range_ms=latency_range_ms(latency_ms, core),
        arena=planned,
    )


def written_values(network: Network) -> int:
    """Count the values that the operations of one inference write."""
    return sum(
        math.prod(network.tensors[index].shape)
        for op in network.ops
        for index in op.outputs
    )


def estimate_latency_ms(macs: int, written_values: int, clock_hz: int) -> float:
    """Estimate the time of one inference with TFLM and CMSIS-NN on a Cortex-M7."""
    cycles = CYCLES_PER_MAC * macs + CYCLES_PER_WRITTEN_VALUE * written_values
    return 1000 * TFLM_SLOWDOWN * cycles / clock_hz


def latency_range_ms(latency_ms: float, core: str) -> tuple[float, float]:
    """Return the bounds of an estimate.

    Below: the worst leave-one-out error, or Helium's width on a Cortex-M55. Above:
    the distance to the one published TFLM row.
    """
    fastest = FASTEST_M55 if core == "cortex-m55" else 1 - LEAVE_ONE_OUT_WORST
    return fastest * latency_ms, SLOWEST * latency_ms
