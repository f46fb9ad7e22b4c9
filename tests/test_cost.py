"""Costs of networks, and the latency model re-derived from its rows."""

from pathlib import Path

import numpy as np
import pytest

from keras_omv import arena, cost, flatbuffer
from keras_omv.boards import Budget, get_board
from keras_omv.units import format_bytes

DATA = Path(__file__).parent / "data" / "device-ram"
NAME = "mnv2_a035_r64_c3_k10.tflite"
TERMS = np.array([(row.macs, row.written_values) for row in cost.PUBLISHED_ROWS], "f8")
MEASURED_MS = np.array([row.latency_ms for row in cost.PUBLISHED_ROWS])


@pytest.fixture(scope="module")
def network():
    return flatbuffer.read((DATA / NAME).read_bytes())


def fit(terms, latency_ms):
    ones = np.ones(len(latency_ms))
    return np.linalg.lstsq(terms / latency_ms[:, None], ones, rcond=None)[0]


def leave_one_out_errors(terms):
    errors = []
    for index, measured_ms in enumerate(MEASURED_MS):
        seen = np.arange(len(MEASURED_MS)) != index
        predicted_ms = terms[index] @ fit(terms[seen], MEASURED_MS[seen])
        errors.append(abs(predicted_ms / measured_ms - 1))
    return np.array(errors)


def test_the_latency_model_is_the_least_squares_fit_of_its_rows():
    cycles = fit(TERMS, MEASURED_MS) * cost.PUBLISHED_CLOCK_HZ / 1000
    expected = (cost.CYCLES_PER_MAC, cost.CYCLES_PER_WRITTEN_VALUE)
    np.testing.assert_allclose(cycles, expected, rtol=1e-5)


def test_the_stored_leave_one_out_error_is_the_rows_own():
    errors = leave_one_out_errors(TERMS)
    assert errors.mean() == pytest.approx(cost.LEAVE_ONE_OUT_ERROR, abs=5e-5)
    assert errors.max() == pytest.approx(cost.LEAVE_ONE_OUT_WORST, abs=5e-5)


def test_two_terms_beat_macs_alone():
    assert cost.LEAVE_ONE_OUT_ERROR < 0.12
    assert leave_one_out_errors(TERMS[:, :1]).mean() > 4 * cost.LEAVE_ONE_OUT_ERROR


def test_the_range_holds_the_published_tflm_row():
    # MobileNetV2 0.3 at 64 px, 2 classes, on an STM32H743 at 480 MHz: 43 ms.
    latency_ms = cost.estimate_latency_ms(4_504_704, 240_322, 480_000_000)
    low_ms, high_ms = cost.latency_range_ms(latency_ms, "cortex-m7")
    assert low_ms <= 43 <= high_ms


def test_a_cost_says_what_the_camera_reports(network):
    found = cost.cost_of(network, flash_bytes=638_584)
    assert (found.flash_bytes, found.ram_bytes) == (638_584, 128_352)
    assert (found.macs, found.parameters) == (network.macs, network.parameters)
    assert found.macs == 4_747_968
    assert found.arena == arena.plan(network)


def test_the_board_decides_the_core(network):
    found = cost.cost_of(network, flash_bytes=1, board=get_board("openmv-ae3"))
    assert found.ram_bytes == 132_928
    budget = cost.cost_of(network, flash_bytes=1, board=Budget(ram_bytes=1))
    assert budget.ram_bytes == 128_352


def test_time_follows_the_clock(network):
    slow = cost.cost_of(network, flash_bytes=1, board=get_board("openmv-m7"))
    fast = cost.cost_of(network, flash_bytes=1, board=get_board("openmv-rt1062"))
    assert slow.latency_ms / fast.latency_ms == pytest.approx(600 / 216)


@pytest.mark.parametrize("name", ["openmv-h7", "openmv-ae3"])
def test_the_estimate_lies_in_its_range(network, name):
    found = cost.cost_of(network, flash_bytes=1, board=get_board(name))
    low_ms, high_ms = found.latency_range_ms
    assert 0 < low_ms < found.latency_ms < high_ms


def test_a_cost_goes_where_a_board_checks_it(network):
    found = cost.cost_of(network, flash_bytes=100_000)
    assert get_board("openmv-h7").fit(found).fits
    assert format_bytes(found.ram_bytes) == "125.34 KiB"
