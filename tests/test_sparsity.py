"""Zeros among the weights: counted, told from those of rounding, and judged."""

import dataclasses
import logging

import exports
import numpy as np
import pytest

import keras_omv as omv
from keras_omv.architecture import network_of_levers
from keras_omv.boards import board_names, get_board
from keras_omv.report_check import check_folder
from keras_omv.sparsity import pruned_share, pruning_notes, zero_share


def network_with(values):
    """A small network all of whose int8 weights are drawn from values."""
    random = np.random.default_rng(0)
    network = network_of_levers(omv.Levers(alpha=0.1, resolution=32, classes=2))

    def filled(tensor):
        if tensor.data is None or tensor.dtype != "int8":
            return tensor
        data = random.choice(values, tensor.data.shape).astype("int8")
        return dataclasses.replace(tensor, data=data)

    return dataclasses.replace(network, tensors=tuple(map(filled, network.tensors)))


@pytest.mark.parametrize(
    ("values", "zeros", "pruned"),
    [
        ([0, 5, -5, 7], 0.25, 0.25),
        ([0, 1, -1, 9], 0.25, 0.0),
        ([0, 0, 1, -1], 0.5, 0.25),
        ([3, 4], 0.0, 0.0),
        ([0], 1.0, 1.0),
    ],
)
def test_zeros_beyond_as_many_as_their_neighbours_were_pruned(values, zeros, pruned):
    network = network_with(values)
    assert zero_share(network) == pytest.approx(zeros, abs=0.02)
    assert pruned_share(network) == pytest.approx(pruned, abs=0.02)


def test_a_network_without_weights_has_no_zeros():
    network = omv.Network(tensors=(), ops=(), inputs=(), outputs=())
    assert zero_share(network) == pruned_share(network) == 0.0


@pytest.mark.parametrize(
    ("board", "notes"),
    [
        (omv.Budget(), 1),
        (get_board("openmv-rt1062"), 1),
        (get_board("openmv-ae3"), 0),
        (get_board("openmv-n6"), 0),
    ],
    ids=["budget", "rt1062", "ae3", "n6"],
)
def test_zeros_are_worth_a_note_where_they_save_nothing(board, notes):
    assert len(pruning_notes(network_with([0, 5, -5, 7]), board)) == notes
    assert pruning_notes(network_with([0, 1, -1, 9]), board) == ()


@pytest.mark.parametrize(
    ("board", "compresses"),
    [("openmv-ae3", True), ("openmv-ae3-he", True), ("openmv-n6", False)],
)
def test_only_an_ethos_u_compresses_weights(board, compresses):
    assert get_board(board).compresses_weights is compresses
    assert not omv.Budget().compresses_weights
    others = [get_board(name) for name in board_names() if name != "openmv-ae3"]
    assert not any(one.compresses_weights for one in others)


def pruned_model(share):
    """The small model with the least of its weights cut off."""
    model = exports.make_model(12)
    for layer in model.layers:
        if layer.get_weights():
            kernel, *others = layer.get_weights()
            cut = np.quantile(np.abs(kernel), share)
            layer.set_weights([np.where(np.abs(kernel) < cut, 0, kernel), *others])
    return model


def test_a_pruned_network_is_told_that_zeros_save_nothing_on_a_cpu(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="keras_omv")
    made = exports.make_export(
        tmp_path / "out", pruned_model(0.7), evaluation_data=None
    )
    (note,) = made.report.notes
    assert "of the weights are zeros, which saves nothing on openmv-h7" in note
    assert "omv.ChannelPruning" in note
    assert [record.getMessage() for record in caplog.records].count(note) == 1
    assert note in made.text("report.html")
    assert 0.65 < made.report.zero_weights < 0.8
    assert check_folder(made.folder) == ()


def test_the_zeros_of_rounding_are_no_pruning(tmp_path):
    made = exports.make_export(tmp_path / "out", evaluation_data=None)
    assert made.report.notes == ()
    assert 0 < made.report.zero_weights < 0.1
