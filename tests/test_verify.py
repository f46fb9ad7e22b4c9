"""The firmware's rules, and answers from the runtime that the camera has."""

import dataclasses
import importlib.util
import os

import models
import numpy as np
import pytest

from keras_omv import flatbuffer, verify
from keras_omv.boards import Budget, get_board
from keras_omv.errors import ExportError
from keras_omv.network import Network, Op, Tensor

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)


def activation(name, shape=(1, 4, 4, 3), scale=0.1, dtype="int8"):
    scales, zero_points = np.array([scale], "f4"), np.array([0], "i8")
    return Tensor(name, shape, dtype, scales, zero_points)


def one_op(kind, *tensors, inputs=(0,), **options):
    """A network of one operation from tensor 0 to tensor 1."""
    return Network(tensors, (Op(kind, inputs, (1,), options),), (0,), (1,))


def changed(network, index, **changes):
    tensors = list(network.tensors)
    tensors[index] = dataclasses.replace(tensors[index], **changes)
    return dataclasses.replace(network, tensors=tuple(tensors))


def index_of(network, name):
    return [tensor.name for tensor in network.tensors].index(name)


def plain():
    return models.prepared("plain").network


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_keeps_the_rules(name):
    verify.check_network(models.prepared(name).network)


def test_an_operator_that_the_firmware_lacks_is_named():
    network = one_op("GELU", activation("image"), activation("scores"))
    with pytest.raises(ExportError, match="no operator GELU"):
        verify.check_network(network)


def test_a_release_is_judged_by_its_own_operators():
    network = one_op("HARD_SWISH", activation("image"), activation("scores"))
    verify.check_network(network)
    verify.check_network(network, board=Budget(ram_bytes=1))
    old = get_board("openmv-h7-plus", firmware="4.5.5")
    with pytest.raises(ExportError, match="no operator HARD_SWISH"):
        verify.check_network(network, board=old)


def test_a_dense_layer_quantized_per_channel_is_named():
    network = plain()
    weights = index_of(network, "scores/weights")
    scales = np.full(models.CLASSES, 0.1, "f4")
    with pytest.raises(ExportError, match="'scores/weights' are quantized per channel"):
        verify.check_network(changed(network, weights, scales=scales))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16", "int32"])
def test_a_tensor_that_is_not_int8_is_named(dtype):
    network = changed(plain(), index_of(plain(), "scores"), dtype=dtype)
    with pytest.raises(ExportError, match=rf"(not|of) {dtype}"):
        verify.check_network(network)


@pytest.mark.parametrize("scales", [[], [0.0], [-1.0], [float("nan")]])
def test_a_tensor_without_a_positive_scale_is_named(scales):
    network = plain()
    network = changed(network, index_of(network, "scores"), scales=np.float32(scales))
    with pytest.raises(ExportError, match=r"tensor 'scores' .*has (no|the) scale"):
        verify.check_network(network)


@pytest.mark.parametrize("shape", [(1, 12, 12, 2), (1, 432), (1, 12, 36)])
def test_an_input_that_is_no_image_is_named(shape):
    with pytest.raises(ExportError, match=r"input of shape \(1, .*not \(1, h, w"):
        verify.check_network(changed(plain(), 0, shape=shape))


def test_all_violations_stand_in_one_error():
    network = changed(plain(), 0, shape=(1, 12, 12, 2))
    network = changed(network, index_of(network, "scores"), dtype="float32")
    with pytest.raises(ExportError, match=r"input of shape .*; .*'scores' of float32"):
        verify.check_network(network)


@needs_tflm
def test_tflm_is_what_runs_where_it_is_installed():
    case = models.prepared("plain")
    scores = verify.run_network(case.network, case.pixels[:3])
    assert scores.runtime == verify.TFLM
    assert scores.values.shape == (3, models.CLASSES)
    assert scores.values.dtype == np.int8


def test_litert_runs_where_tflm_is_not_installed(monkeypatch):
    case = models.prepared("plain")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    scores = verify.run_network(case.network, case.pixels[:3])
    assert scores.runtime == verify.LITERT
    assert scores.values.shape == (3, models.CLASSES)


@needs_tflm
@pytest.mark.parametrize("scale", [0.0, 1e-9], ids=["zero", "too narrow"])
def test_a_network_that_tflm_aborts_on_is_an_error_and_not_the_end(scale):
    tensors = activation("image"), activation("sum", scale=scale)
    network = one_op("ADD", *tensors, inputs=(0, 0), activation="NONE")
    with pytest.raises(ExportError, match=r"tflite_micro to run.*died of SIGABRT"):
        verify.run_network(network, np.zeros((1, 4, 4, 3), "uint8"))


@needs_tflm
def test_a_network_that_fails_is_not_tried_on_the_other_images():
    tensors = activation("image"), activation("sum", scale=0.0)
    network = one_op("ADD", *tensors, inputs=(0, 0), activation="NONE")
    told = []
    with pytest.raises(ExportError, match=r"Received: it died of SIGABRT"):
        verify.run_network(
            network,
            np.zeros((400, 4, 4, 3), "uint8"),
            progress=lambda done, total: told.append(done),
        )
    assert told[-1] < 400


@needs_tflm
def test_a_network_that_tflm_refuses_is_an_error():
    network = one_op("SOFTMAX", activation("image"), activation("scores"), beta=1.0)
    with pytest.raises(ExportError, match=r"(?s)tflite_micro to run.*SOFTMAX.*reject"):
        verify.run_network(network, np.zeros((1, 4, 4, 3), "uint8"))


@needs_tflm
def test_images_in_chunks_and_processes_keep_their_order(monkeypatch):
    case = models.prepared("plain")
    images = models.pixels(150, case.pixels.shape[1:])
    told = []
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    scores = verify.run_network(
        case.network, images, progress=lambda *counts: told.append(counts)
    )
    alone = [verify.run_network(case.network, images[i : i + 1]) for i in (0, 9, 149)]
    for index, one in zip((0, 9, 149), alone, strict=True):
        np.testing.assert_array_equal(scores.values[index], one.values[0])
    assert told == sorted(told)
    assert told[-1] == (150, 150)


@needs_tflm
def test_a_small_file_with_a_large_image_has_room():
    network = one_op(
        "ADD",
        activation("image", (1, 200, 200, 3)),
        activation("sum", (1, 200, 200, 3)),
        inputs=(0, 0),
        activation="NONE",
    )
    scores = verify.run_network(network, np.zeros((1, 200, 200, 3), "uint8"))
    assert scores.values.shape == (1, 200, 200, 3)


@needs_tflm
@pytest.mark.parametrize("name", ["plain", "concat", "average_pools", "preactivation"])
def test_tflm_and_litert_differ_by_a_step_of_the_logits_at_most(name):
    network = models.prepared(name).network
    logits = network.ops[-1].inputs
    network = dataclasses.replace(network, ops=network.ops[:-1], outputs=logits)
    images = models.prepared(name).pixels
    tflm = verify.run_network(network, images).values.astype(int)
    litert = verify.run_reference(network, images).values.astype(int)
    assert np.abs(tflm - litert).max() <= 1
    assert np.mean(tflm != litert) < 0.03


def test_the_class_is_that_of_the_largest_score():
    scores = verify.Scores(np.int8([[-128, 5, 4], [127, 0, 126]]), verify.TFLM)
    np.testing.assert_array_equal(scores.classes, [1, 0])


def test_a_single_score_means_class_one_from_a_half_on():
    scores = verify.Scores(np.int8([[-128], [-1], [0], [127]]), verify.TFLM)
    np.testing.assert_array_equal(scores.classes, [0, 0, 1, 1])


@pytest.mark.parametrize("name", ["single_sigmoid", "single_logit"])
def test_classes_of_a_single_output_are_those_of_the_model(name):
    case = models.prepared(name)
    scores = np.asarray(case.model(case.inputs))[:, 0]
    expected = scores >= (0.5 if name == "single_sigmoid" else 0.0)
    classes = verify.run_reference(case.network, case.pixels).classes
    assert 0.2 < np.mean(expected) < 0.8
    assert np.mean(classes == expected) > 0.95


def test_a_network_read_from_its_file_answers_the_same():
    case = models.prepared("residual")
    again = flatbuffer.read(flatbuffer.write(case.network, desktop=True))
    first = verify.run_reference(case.network, case.pixels[:20])
    second = verify.run_reference(again, case.pixels[:20])
    np.testing.assert_array_equal(first.values, second.values)
