"""Which channels go for a share, and which to fit a camera."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import keras_omv as omv
from keras_omv.architecture import Levers, network_of_levers
from keras_omv.channels import channels_of
from keras_omv.shrinking import (
    LEAST_KEPT,
    cost_without,
    order_for_budget,
    order_for_share,
)

LEVERS = Levers(alpha=0.35, resolution=64, classes=10)
NETWORK = network_of_levers(LEVERS)
CHANNELS = channels_of(NETWORK)
DENSE = cost_without(NETWORK, CHANNELS, np.zeros(len(CHANNELS.removable), bool))
few = hypothesis.settings(max_examples=15, deadline=None)


def importance(seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, len(CHANNELS.removable))


def nothing_gone():
    return np.zeros(len(CHANNELS.removable), bool)


def removed(order):
    gone = nothing_gone()
    gone[order] = True
    return gone


@few
@hypothesis.given(st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_share_takes_the_least_important_of_each_convolution(share, seed):
    weight = importance(seed)
    gone = removed(order_for_share(CHANNELS, weight, nothing_gone(), share))
    for group in CHANNELS.rectified:
        count = min(round(share * len(group)), len(group) - 1)
        assert gone[group].sum() == count
        if count:
            assert weight[group[gone[group]]].max() <= weight[group[~gone[group]]].min()


@few
@hypothesis.given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.integers(0, 9))
def test_a_share_goes_on_from_what_is_gone(share, earlier, seed):
    earlier_order = order_for_share(CHANNELS, importance(), nothing_gone(), earlier)
    gone = removed(earlier_order)
    order = order_for_share(CHANNELS, importance(seed), gone, share)
    assert not gone[order].any()
    gone[order] = True
    for group in CHANNELS.rectified:
        assert gone[group].sum() == max(round(s * len(group)) for s in (share, earlier))


def test_any_beginning_of_a_share_takes_equal_shares():
    order = order_for_share(CHANNELS, importance(), nothing_gone(), 0.5)
    gone = removed(order[: len(order) // 2])
    for group in CHANNELS.rectified:
        assert gone[group].mean() == pytest.approx(0.25, abs=1.5 / len(group))


@few
@hypothesis.given(st.floats(0.3, 1.1), st.floats(0.4, 1.1), st.integers(0, 9))
def test_for_a_budget_the_network_fits_and_nothing_is_emptied(flash, ram, seed):
    budget = omv.Budget(
        flash_bytes=int(flash * DENSE.flash_bytes), ram_bytes=int(ram * DENSE.ram_bytes)
    )
    order = order_for_budget(
        NETWORK, CHANNELS, importance(seed), nothing_gone(), budget
    )
    assert len(set(order)) == len(order)
    assert CHANNELS.removable[order].all()
    gone = removed(order)
    assert budget.fit(cost_without(NETWORK, CHANNELS, gone)).fits
    assert (flash >= 1 and ram >= 1) == (len(order) == 0)
    for group in CHANNELS.rectified:
        assert (~gone[group]).mean() >= LEAST_KEPT


def test_flash_comes_from_the_last_convolution_and_ram_from_the_early_expansions():
    weight = np.ones(len(CHANNELS.removable))

    def shares(**limits):
        budget = omv.Budget(**limits)
        gone = removed(
            order_for_budget(NETWORK, CHANNELS, weight, nothing_gone(), budget)
        )
        return [gone[group].mean() for group in CHANNELS.rectified]

    for_flash = shares(flash_bytes=int(0.8 * DENSE.flash_bytes))
    assert max(for_flash) == for_flash[-1] > 0.3
    for_ram = shares(ram_bytes=int(0.8 * DENSE.ram_bytes))
    assert max(for_ram) == for_ram[1] > 0.3  # The expansion at 32 x 32.


def test_fewer_channels_go_than_with_equal_shares():
    """That is what choosing by relief is for."""
    budget = omv.Budget(
        flash_bytes=int(0.6 * DENSE.flash_bytes), ram_bytes=int(0.75 * DENSE.ram_bytes)
    )
    order = order_for_budget(NETWORK, CHANNELS, importance(), nothing_gone(), budget)
    shares = np.linspace(0.01, 0.99, 99)
    orders = (
        order_for_share(CHANNELS, importance(), nothing_gone(), s) for s in shares
    )
    equal = next(
        found
        for found in orders
        if budget.fit(cost_without(NETWORK, CHANNELS, removed(found))).fits
    )
    assert len(order) < len(equal)


@pytest.mark.parametrize(("flash", "ram"), [(0.6, 0.75), (0.4, 0.6), (0.6, 0.6)])
def test_no_more_goes_than_flash_and_ram_ask_for(flash, ram):
    budget = omv.Budget(
        flash_bytes=int(flash * DENSE.flash_bytes), ram_bytes=int(ram * DENSE.ram_bytes)
    )
    order = order_for_budget(NETWORK, CHANNELS, importance(), nothing_gone(), budget)
    cost = cost_without(NETWORK, CHANNELS, removed(order))
    assert cost.ram_bytes / DENSE.ram_bytes == pytest.approx(ram, abs=0.02)
    assert cost.flash_bytes / DENSE.flash_bytes == pytest.approx(flash, abs=0.02)


def test_a_real_camera_is_a_target():
    levers = Levers(alpha=0.35, resolution=96, classes=5)
    network = network_of_levers(levers)
    channels = channels_of(network)
    board = omv.get_board("openmv-h7")
    gone = np.zeros(len(channels.removable), bool)
    assert not board.fit(cost_without(network, channels, gone, board)).fits
    order = order_for_budget(network, channels, np.ones(len(gone)), gone, board)
    gone[order] = True
    assert board.fit(cost_without(network, channels, gone, board)).fits


def test_where_the_file_takes_ram_too_channels_go_that_take_much_of_it():
    """Firmware 4.5.5 reads the file into the memory that the arena needs."""
    levers = Levers(alpha=0.5, resolution=96, classes=5)
    network = network_of_levers(levers)
    channels = channels_of(network)
    board = omv.get_board("openmv-h7", firmware="4.5.5")
    gone = np.zeros(len(channels.removable), bool)
    order = order_for_budget(network, channels, np.ones(len(gone)), gone, board)
    gone[order] = True
    assert board.fit(cost_without(network, channels, gone, board)).fits
    shares = [gone[group].mean() for group in channels.rectified]
    assert max(shares) == shares[-1] > 0.5  # The last convolution.


def test_what_cannot_fit_says_what_is_left():
    budget = omv.Budget(ram_bytes=20_000)
    with pytest.raises(omv.BudgetError, match="smaller resolution or alpha"):
        order_for_budget(NETWORK, CHANNELS, importance(), nothing_gone(), budget)
