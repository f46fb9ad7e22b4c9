"""Takes channels out of an int8 network.

A channel that is always zero changes nothing on the camera: its int8 value is the
zero point, which every kernel subtracts. Without such channels the answers stay the
same, bit for bit, and flash, RAM and time shrink. This module needs NumPy only.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_omv.channels import Channels, WeightedOp, channels_of
from keras_omv.network import Network, Op, Tensor


def compact(network: Network) -> Network:
    """The same network without the channels that are always zero.

    Of channels that one operation makes at least one is kept.
    """
    channels = channels_of(network)
    gone = zero_channels(network, channels)
    return without(network, channels, gone) if gone.any() else network


def zero_channels(network: Network, channels: Channels) -> np.ndarray:
    """For each channel, whether it is always zero and can go.

    Args:
        network: The network.
        channels: Of the network.
    """
    zero = channels.removable.copy()
    for op in channels.weighted:
        bias = _bias(network, op)
        silent = np.ones(len(op.outputs), bool) if bias is None else bias == 0
        if network.ops[op.index].kind != "DEPTHWISE_CONV_2D":
            kernel = _kernel(network, op)
            silent &= ~kernel.reshape(len(kernel), -1).any(axis=1)
        np.logical_and.at(zero, op.outputs, silent)
    for group in channels.groups:
        if zero[group].all():
            zero[group[0]] = False
    return zero


def without(network: Network, channels: Channels, gone: np.ndarray) -> Network:
    """The network without some of its channels.

    Args:
        network: The network.
        channels: Of the network.
        gone: For each channel whether to leave it out; only ones that can go.
    """
    tensors = list(network.tensors)
    for index, numbers in channels.of_tensor.items():
        shape = (*tensors[index].shape[:-1], int(np.count_nonzero(~gone[numbers])))
        tensors[index] = dataclasses.replace(tensors[index], shape=shape)
    for op in channels.weighted:
        _cut_weights(
            tensors, network.ops[op.index], ~gone[op.inputs], ~gone[op.outputs]
        )
    ops = _with_shapes(network.ops, tensors)
    return dataclasses.replace(network, tensors=tuple(tensors), ops=ops)


def _kernel(network: Network, op: WeightedOp) -> Any:
    return network.tensors[network.ops[op.index].inputs[1]].data


def _bias(network: Network, op: WeightedOp) -> Any:
    inputs = network.ops[op.index].inputs
    return (
        network.tensors[inputs[2]].data if len(inputs) > 2 and inputs[2] >= 0 else None
    )


def _cut_weights(
    tensors: list[Tensor], op: Op, inputs: np.ndarray, outputs: np.ndarray
) -> None:
    """Leaves the weights of some inputs and outputs out of an operation's."""
    kernel = tensors[op.inputs[1]]
    if op.kind != "DEPTHWISE_CONV_2D":
        kernel = _cut(kernel, inputs, len(kernel.shape) - 1)
    axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    tensors[op.inputs[1]] = _cut(kernel, outputs, axis)
    for index in op.inputs[2:3]:
        if index >= 0:
            tensors[index] = _cut(tensors[index], outputs, 0)


def _cut(tensor: Tensor, kept: np.ndarray, axis: int) -> Tensor:
    """A constant with only some places of an axis, and their scales."""
    if kept.all() or tensor.data is None:
        return tensor
    data = np.ascontiguousarray(tensor.data.compress(kept, axis=axis))
    changed = dataclasses.replace(tensor, data=data, shape=data.shape)
    if axis != tensor.axis or len(tensor.scales) != len(kept):
        return changed
    points = tensor.zero_points
    return dataclasses.replace(
        changed,
        scales=tensor.scales[kept],
        zero_points=points[kept] if len(points) == len(kept) else points,
    )


def _with_shapes(ops: tuple[Op, ...], tensors: list[Tensor]) -> tuple[Op, ...]:
    """The operations with the shapes that reshapes make now; adds to `tensors`."""
    placed: dict[tuple[int, ...], int] = {}
    taken: set[int] = set()
    changed = []
    for op in ops:
        if op.kind == "RESHAPE" and len(op.inputs) > 1:
            op = _with_shape(op, tensors, placed, taken)
        changed.append(op)
    return tuple(changed)


def _with_shape(
    op: Op, tensors: list[Tensor], placed: dict[tuple[int, ...], int], taken: set[int]
) -> Op:
    target, shape = op.inputs[1], tensors[op.outputs[0]].shape
    if shape not in placed:
        data = np.array(shape, "int32")
        tensor = dataclasses.replace(tensors[target], shape=data.shape, data=data)
        placed[shape] = len(tensors) if target in taken else target
        if target in taken:
            tensors.append(tensor)
        else:
            tensors[target] = tensor
            taken.add(target)
    options = dict(op.options)
    if "new_shape" in options:
        options["new_shape"] = shape
    return dataclasses.replace(
        op, inputs=(op.inputs[0], placed[shape]), options=options
    )
