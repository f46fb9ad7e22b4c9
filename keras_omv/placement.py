"""The head of a MobileNetV2's arena, exact, without a network.

The same plan as `arena.place` makes, on integers. The trunk (image, stem, blocks) is
planned once per width, resolution and camera core. Cutting it after some block and
putting a classifier on moves only the buffers that a larger, later neighbour could
have pushed: the others keep their places, so a candidate takes microseconds.
Sizes are bytes.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from keras_omv.units import align

# Requests of one size are planned last first, all tensors before all scratch. Ranks
# keep that order between the trunk's buffers (by creation) and the classifier's.
_CLASSIFIER_RANK, _SCRATCH_RANK, _LAST_SCRATCH_RANK = 1_000, 2_000, 3_000
_FEATURES, _SUMS, _POOL, _LOGITS, _SCORES = range(-5, 0)  # Buffers of the classifier.
_RANKS = {
    _FEATURES: _CLASSIFIER_RANK,
    _POOL: _CLASSIFIER_RANK + 1,
    _LOGITS: _CLASSIFIER_RANK + 2,
    _SCORES: _CLASSIFIER_RANK + 3,
    _SUMS: _LAST_SCRATCH_RANK,
}
_NEIGHBOURS = {
    _FEATURES: (_SUMS, _POOL),
    _SUMS: (_FEATURES, _POOL),
    _POOL: (_FEATURES, _SUMS, _LOGITS),
    _LOGITS: (_POOL, _SCORES),
    _SCORES: (_LOGITS,),
}

Span = tuple[int, int]  # Where a buffer starts and where it ends.
# Size, rank, buffer, the spans beside it that stay, the buffers beside it that move.
_Request = tuple[int, int, int, list[Span], tuple[int, ...]]


class Lifetimes(NamedTuple):
    """Which buffers of a trunk live together.

    Attributes:
        neighbours: For each buffer, the buffers alive at one of its operations.
        is_scratch: For each buffer, whether a kernel asked for it.
        outputs: The buffer that holds the output of the first `depth` blocks.
    """

    neighbours: tuple[tuple[int, ...], ...]
    is_scratch: tuple[bool, ...]
    outputs: tuple[int, ...]


class _Cut(NamedTuple):
    """What a cut after some block leaves in place.

    Attributes:
        kept_bytes: The highest end of the buffers that stay.
        near_bytes: The highest end of those beside one that moves.
        moved: Those that move.
        moved_bytes: The sum of their sizes.
    """

    kept_bytes: int
    near_bytes: int
    moved: list[_Request]
    moved_bytes: int


class TrunkPlan:
    """The placed buffers of a trunk that can be cut after any block."""

    def __init__(self, sizes: Sequence[int], lifetimes: Lifetimes) -> None:
        """Plans the whole trunk.

        Args:
            sizes: Bytes of each buffer, rounded up to 16, in order of creation.
            lifetimes: From `lifetimes_of`.
        """
        self._sizes = sizes
        self._lifetimes = lifetimes
        self._spans: list[Span | None] = [None] * len(sizes)
        # The latest buffer that each one's place depends on.
        self._reach = list(range(len(sizes)))
        self._order = sorted(range(len(sizes)), key=self._key, reverse=True)
        for buffer in self._order:
            self._place(buffer)
        self._cuts: dict[int, _Cut] = {}

    def kept_bytes(self, depth: int) -> int:
        """A lower bound of `head_bytes` for any classifier."""
        return self._cut(depth).kept_bytes

    def head_bytes(self, depth: int, *, pixels: int, head: int, classes: int) -> int:
        """The arena's head with a classifier after the first `depth` blocks.

        Args:
            depth: How many blocks are kept.
            pixels: Height times width of their output.
            head: Channels of the last convolution.
            classes: Number of classes.
        """
        cut = self._cut(depth)
        scores_bytes = align(classes)
        sizes = {
            _FEATURES: align(pixels * head),
            _SUMS: align(4 * head),
            _POOL: align(head),
            _LOGITS: scores_bytes,
            _SCORES: scores_bytes,
        }
        # What moves ends up above a neighbour, at worst all of it in one stack.
        limit_bytes = cut.near_bytes + cut.moved_bytes + sum(sizes.values())
        if limit_bytes <= cut.kept_bytes:
            return cut.kept_bytes
        return max(cut.kept_bytes, self._replan(depth, cut, sizes))

    def _replan(self, depth: int, cut: _Cut, sizes: dict[int, int]) -> int:
        """Places what a cut moves and the classifier; returns the highest end."""
        output = self._lifetimes.outputs[depth]
        requests: list[_Request] = [
            (size, _RANKS[buffer], buffer, [], _NEIGHBOURS[buffer])
            for buffer, size in sizes.items()
        ]
        requests += cut.moved
        requests.sort(reverse=True)
        placed: dict[int, Span] = {}
        for size, _, buffer, kept, beside in requests:
            spans = kept + [placed[other] for other in beside if other in placed]
            if buffer == _FEATURES and output in placed:
                spans.append(placed[output])
            start = _first_gap(spans, size)
            placed[buffer] = (start, start + size)
        return max(end for _, end in placed.values())

    def _key(self, buffer: int) -> tuple[int, int]:
        is_scratch = self._lifetimes.is_scratch[buffer]
        return self._sizes[buffer], buffer + _SCRATCH_RANK * is_scratch

    def _place(self, buffer: int) -> None:
        beside = self._lifetimes.neighbours[buffer]
        spans = []
        for other in beside:
            span = self._spans[other]
            if span is not None:
                spans.append(span)
                self._reach[buffer] = max(self._reach[buffer], self._reach[other])
        start = _first_gap(spans, self._sizes[buffer])
        self._spans[buffer] = (start, start + self._sizes[buffer])

    def _cut(self, depth: int) -> _Cut:
        if depth not in self._cuts:
            self._cuts[depth] = self._make_cut(depth)
        return self._cuts[depth]

    def _make_cut(self, depth: int) -> _Cut:
        output = self._lifetimes.outputs[depth]
        moves = {b for b in range(output + 1) if self._reach[b] >= output}
        kept_ends = [self._span(b)[1] for b in range(output) if b not in moves]
        requests = [self._request(buffer, moves, output) for buffer in moves]
        near_ends = [end for *_, kept, _ in requests for _, end in kept]
        moved_bytes = sum(self._sizes[buffer] for buffer in moves)
        kept_bytes, near_bytes = (max(e, default=0) for e in (kept_ends, near_ends))
        return _Cut(kept_bytes, near_bytes, requests, moved_bytes)

    def _request(self, buffer: int, moves: set[int], output: int) -> _Request:
        key = self._key(buffer)
        beside = [b for b in self._lifetimes.neighbours[buffer] if b <= output]
        kept = [self._span(b) for b in beside if b not in moves and self._key(b) > key]
        moving = [b for b in beside if b in moves]
        if buffer == output:
            moving.append(_FEATURES)
        return (*key, buffer, kept, tuple(moving))

    def _span(self, buffer: int) -> Span:
        return self._spans[buffer] or (0, 0)


@functools.lru_cache(maxsize=64)
def lifetimes_of(residual: tuple[bool, ...], core: str) -> Lifetimes:
    """The lifetimes of a trunk's buffers.

    The buffers are the image, then for each operation its output and its scratch:
    the stem's, on a Cortex-M55 also every depthwise convolution's.

    Args:
        residual: For each block, whether its input is added to its output.
        core: `"cortex-m7"` or `"cortex-m55"`.
    """
    lives: list[list[int]] = [[-1, 0], [0, 0], [0, 0]]  # Image, stem, stem's scratch.
    is_scratch, outputs, op = [False, False, True], [1], 0
    for index, is_residual in enumerate(residual):
        source = outputs[-1]
        steps = ("depthwise", "project") if index == 0 else _STEPS
        for step in (*steps, "add") if is_residual else steps:
            op += 1
            lives[_latest(is_scratch)][1] = op
            if step == "add":
                lives[source][1] = op
            lives.append([op, op])
            is_scratch.append(False)
            if step == "depthwise" and core == "cortex-m55":
                lives.append([op, op])
                is_scratch.append(True)
        outputs.append(_latest(is_scratch))
    return Lifetimes(_neighbours(lives), tuple(is_scratch), tuple(outputs))


_STEPS = ("expand", "depthwise", "project")


def _latest(is_scratch: list[bool]) -> int:
    """Return the newest buffer that is a tensor."""
    newest = len(is_scratch) - 1
    return newest - 1 if is_scratch[newest] else newest


def _neighbours(lives: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(
            other
            for other, (first, last) in enumerate(lives)
            if other != buffer and first <= end and start <= last
        )
        for buffer, (start, end) in enumerate(lives)
    )


def _first_gap(spans: list[Span], size: int) -> int:
    """Return the start of the lowest gap between spans that takes `size` bytes."""
    start = 0
    spans.sort()
    for lower, upper in spans:
        if lower - start >= size:
            break
        start = max(start, upper)
    return start
