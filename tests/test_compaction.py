"""A network without its zero channels answers as before, from less memory."""

import dataclasses
import importlib.util

import models
import numpy as np
import pytest

import keras_omv as omv
from keras_omv import flatbuffer, verify
from keras_omv.architecture import Levers, network_of_levers
from keras_omv.channel_masks import ChannelMasks
from keras_omv.channels import channels_of
from keras_omv.compaction import compact, without, zero_channels
from keras_omv.convert import lower
from keras_omv.cost import cost_of
from keras_omv.view import QuantizedView

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)
# No convolution has a ReLU of its own, or an addition or a second use holds it.
NOTHING_TO_TAKE = {
    "concat_of_activations",
    "functional_backbone",
    "preactivation",
    "relu6_after_concat",
    "relu_after_concat",
    "shared_layer",
    "sum_of_three",
}
LEVERS = Levers(alpha=0.35, resolution=64, classes=10)
MOBILENET = network_of_levers(LEVERS)


def every_other(channels):
    """Whether to take each channel: every other one of what can go."""
    gone = np.zeros(len(channels.removable), bool)
    for group in channels.rectified:
        gone[group[1::2]] = True
    return gone


def thinned(name):
    """A view of a model of which every other channel was made zero, and pixels."""
    model, input_range = models.MODELS[name]()
    models.randomize(model)
    masks = ChannelMasks(model)
    masks.remove(np.flatnonzero(every_other(masks.channels)))
    view = QuantizedView(model, input_range=input_range)
    pixels = models.pixels(12, view.graph.input_shape)
    view.calibrate([models.as_inputs(pixels, input_range)])
    return view, pixels


@needs_tflm
@pytest.mark.parametrize("name", sorted(set(models.MODELS) - NOTHING_TO_TAKE))
def test_without_its_zero_channels_a_network_gives_the_same_bytes(name):
    view, pixels = thinned(name)
    whole, cut = lower(view, compacted=False), lower(view)
    assert len(flatbuffer.write(cut)) < len(flatbuffer.write(whole))
    np.testing.assert_array_equal(
        verify.run_network(cut, pixels).values, verify.run_network(whole, pixels).values
    )
    # What was written is what a reader finds, and nothing more can go.
    again = flatbuffer.read(flatbuffer.write(cut))
    assert not zero_channels(again, channels_of(again)).any()


@pytest.mark.parametrize("name", sorted(NOTHING_TO_TAKE))
def test_a_model_without_channels_to_take_is_told_so(name):
    with pytest.raises(omv.UnsupportedModelError, match="to take channels from"):
        thinned(name)


def test_a_network_without_zero_channels_is_left_as_it_is():
    model, input_range = models.MODELS["inverted_residual"]()
    models.randomize(model)
    network = lower(QuantizedView(model, input_range=input_range), compacted=False)
    assert compact(network) is network


def test_of_each_convolution_one_channel_is_kept():
    # All weights and biases of the levers' network are zeros.
    channels = channels_of(MOBILENET)
    small = compact(MOBILENET)
    kept = channels_of(small)
    assert len(kept.groups) == len(channels.groups)
    assert all(len(group) == 1 for group in kept.groups)


def test_residual_streams_image_and_scores_keep_their_channels():
    channels = channels_of(MOBILENET)
    added = [op for op in MOBILENET.ops if op.kind == "ADD"]
    assert len(added) == 10
    for op in added:
        for tensor in (*op.inputs, *op.outputs):
            assert not channels.removable[channels.of_tensor[tensor]].any()
    for tensor in (*MOBILENET.inputs, *MOBILENET.outputs):
        assert not channels.removable[channels.of_tensor[tensor]].any()


def test_expansions_stem_and_last_convolution_can_go_and_bottlenecks_stay():
    sizes = [len(group) for group in channels_of(MOBILENET).rectified]
    expansions = [
        b.expanded for b in Levers(alpha=0.35, resolution=64, classes=10).blocks
    ]
    assert sizes == [16, *expansions[1:], 1280]


@pytest.mark.parametrize("core", ["cortex-m7", "cortex-m55"])
def test_a_thinner_last_convolution_costs_what_that_architecture_costs(core):
    """The same network made in two ways: cut, and from the levers."""
    channels = channels_of(MOBILENET)
    gone = np.zeros(len(channels.removable), bool)
    gone[channels.rectified[-1][640:]] = True
    cut = without(MOBILENET, channels, gone)
    drawn = network_of_levers(dataclasses.replace(LEVERS, head_channels=640))
    assert flatbuffer.write(cut) == flatbuffer.write(drawn)
    board = dataclasses.replace(omv.get_board("openmv-h7"), core=core)
    costs = [cost_of(n, flash_bytes=0, board=board) for n in (cut, drawn)]
    assert costs[0] == costs[1]


def test_weights_that_two_operations_share_stay_whole():
    ops = list(MOBILENET.ops)
    head = next(i for i, op in enumerate(ops) if op.outputs[0] == _named("head"))
    ops.insert(head + 1, dataclasses.replace(ops[head], outputs=ops[head].outputs))
    shared = dataclasses.replace(MOBILENET, ops=tuple(ops))
    channels = channels_of(shared)
    assert not channels.removable[channels.of_tensor[_named("head")]].any()


def _named(name):
    return next(i for i, t in enumerate(MOBILENET.tensors) if t.name == name)
