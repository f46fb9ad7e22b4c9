"""Cameras as data, and the fit rule of firmware 5.0.0."""

import dataclasses
import json
import subprocess
import sys
from importlib import resources

import pytest

from keras_omv.boards import Board, Budget, as_board, board_names, get_board
from keras_omv.errors import BudgetError
from keras_omv.fit import QVGA_FRAME_BYTES
from keras_omv.memory import SCRIPT_RESERVE_BYTES, SPILL_RESERVE_BYTES
from keras_omv.units import format_bytes

DATA = json.loads(resources.files("keras_omv").joinpath("boards.json").read_text())
EVERY_RELEASE = [
    (name, firmware)
    for name, entry in DATA["boards"].items()
    for firmware in entry["firmware"]
]


@dataclasses.dataclass(frozen=True)
class Cost:
    flash_bytes: int
    ram_bytes: int


def test_every_camera_of_the_design_is_known():
    assert board_names() == (
        "openmv-m7",
        "openmv-h7",
        "openmv-h7-plus",
        "openmv-pure-thermal",
        "openmv-rt1062",
        "openmv-n6",
        "openmv-ae3",
        "arduino-giga",
        "arduino-nicla-vision",
        "arduino-portenta-h7",
    )


@pytest.mark.parametrize(("name", "firmware"), EVERY_RELEASE)
def test_pools_follow_from_raw_block_sizes(name, firmware):
    # MicroPython's py/gc.c: 8 bits of table per 524 for 64-byte heap blocks; blocks
    # after the first give 32 bytes to the record that links them.
    for index, block in enumerate(get_board(name, firmware=firmware).heap):
        total_bytes = block.size_bytes - (32 if index else 0)
        assert block.pool_bytes == (total_bytes - 1) * 8 // 524 * 64
        assert ":" in block.source


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("openmv-m7", (49_984,)),
        ("openmv-h7", (64_000, 264_064)),
        ("openmv-h7-plus", (232_064, 4_098_176)),
        ("openmv-rt1062", (64_000, 204_032, 8_196_416)),
        ("openmv-ae3", (4_098_240,)),
        ("openmv-ae3-he", (2_049_088,)),
        ("arduino-nicla-vision", (29_952, 62_976, 276_096)),
    ],
)
def test_pools_of_firmware_5_are_the_known_ones(name, pools):
    assert tuple(block.pool_bytes for block in get_board(name).heap) == pools


@pytest.mark.parametrize("name", ["openmv-h7-plus", "OPENMV4P", "OpenMV4p"])
@pytest.mark.parametrize("firmware", ["5.0", "5.0.0", "v5.0.0"])
def test_a_camera_answers_to_both_names_in_any_case(name, firmware):
    assert get_board(name, firmware=firmware) == get_board("openmv-h7-plus")


def test_ae3_means_its_large_core():
    assert get_board("OPENMV_AE3").clock_hz == 400_000_000
    assert get_board("openmv-ae3-he").clock_hz == 160_000_000


def test_unknown_camera_offers_the_nearest_names():
    with pytest.raises(ValueError, match=r"Did you mean .*openmv-h7-plus"):
        get_board("openmv-h7plus")
    with pytest.raises(ValueError, match=r"Expected one of openmv-m7, .*Received: 'x'"):
        get_board("x")


def test_unknown_firmware_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Expected one of .*4\.8\.1, 5\.0\.0"):
        get_board("openmv-h7", firmware="9.9")


def test_romfs_is_preferred_and_keeps_the_stock_models_where_it_can():
    fit = get_board("openmv-rt1062").fit(Cost(452_448, 60_000))
    assert (fit.fits, fit.storage, fit.replaces_stock_models) == (True, "romfs", False)
    assert any("weights take no RAM" in reason for reason in fit.reasons)


def test_a_small_romfs_gives_up_the_stock_models_and_says_so():
    fit = get_board("openmv-h7").fit(Cost(125_624, 60_000))
    assert (fit.fits, fit.storage, fit.replaces_stock_models) == (True, "romfs", True)
    assert any("in place of" in reason for reason in fit.reasons)


def test_a_file_too_large_for_romfs_is_read_from_the_card():
    fit = get_board("openmv-h7").fit(Cost(300_000, 200_000))
    assert (fit.fits, fit.storage) == (True, "sdcard")
    assert any("before configuring the camera" in reason for reason in fit.reasons)


def test_a_file_takes_the_largest_heap_run_before_the_arena_does():
    fit = get_board("openmv-h7").fit(Cost(200_000, 60_000))
    left_bytes = 264_064 - SPILL_RESERVE_BYTES - 200_000 - 63
    assert (fit.fits, fit.ram_limit_bytes) == (False, left_bytes)


def test_frame_buffers_and_weights_share_one_pool():
    board, cost = get_board("openmv-h7"), Cost(330_000, 100_000)
    assert not board.fit(cost, frame_bytes=QVGA_FRAME_BYTES).fits
    assert board.fit(cost, frame_bytes=96 * 96 * 2).fits


def test_the_arena_takes_the_first_block_that_holds_it():
    board = get_board("openmv-rt1062")
    first = 64_000 - SCRIPT_RESERVE_BYTES
    second = 204_032 - SPILL_RESERVE_BYTES
    sizes = (first, first + 1, second, second + 1)
    blocks = [board.fit(Cost(1000, size)).arena_memory for size in sizes]
    assert blocks == ["OCRM2", "DTCM", "DTCM", "DRAM"]


def test_the_speed_cliff_is_named():
    fit = get_board("openmv-rt1062").fit(Cost(1000, 205_152))
    assert fit.fits
    assert any("slow external memory" in reason for reason in fit.reasons)


def test_check_says_what_is_over_and_where_it_would_fit():
    with pytest.raises(BudgetError, match=r"187,024 bytes over.*openmv-h7-plus"):
        get_board("openmv-h7").check(Cost(100_000, 434_704))
    with pytest.raises(BudgetError, match=r"flash of at most 319,053 bytes"):
        get_board("openmv-h7").check(Cost(617_896, 205_152))
    get_board("openmv-h7-plus").check(Cost(617_896, 205_152))


def test_what_an_older_release_adds_to_the_arena_still_names_its_lever():
    board = get_board("openmv-m7", firmware="4.2.0")
    with pytest.raises(BudgetError, match=r"1 bytes over.*smaller resolution"):
        board.check(Cost(1, board.ram_limit_bytes - 511))


@pytest.mark.parametrize(("name", "firmware"), EVERY_RELEASE)
def test_a_model_at_the_limits_fits_and_one_byte_more_does_not(name, firmware):
    board = get_board(name, firmware=firmware)
    extra_bytes = {"4.5.9": 512, "4.5.6": -512, "4.5.5": -512, "4.2.0": -512}
    ram_bytes = board.ram_limit_bytes + extra_bytes.get(firmware, 0)
    assert board.fit(Cost(1, ram_bytes - 64)).fits
    assert not board.fit(Cost(1, ram_bytes + 1)).fits
    assert board.fit(Cost(board.flash_limit_bytes, 1000)).fits
    assert not board.fit(Cost(board.flash_limit_bytes + 1, 1000)).fits


def test_npu_cameras_say_what_a_plain_file_does():
    cost = Cost(100_000, 100_000)
    assert any(
        "stedgeai" in reason for reason in get_board("openmv-n6").fit(cost).reasons
    )
    assert any("vela" in reason for reason in get_board("openmv-ae3").fit(cost).reasons)


def test_the_n6_says_first_that_a_plain_file_does_not_load():
    for cost in (Cost(100_000, 100_000), Cost(10**9, 10**9)):
        assert get_board("openmv-n6").fit(cost).reasons[0].startswith("The N6 does not")


def test_what_does_not_fit_is_not_said_to_lie_somewhere():
    fit = get_board("openmv-h7").fit(Cost(100_000, 434_704))
    assert not fit.fits
    text = " ".join(fit.reasons)
    assert "take no RAM" not in text
    assert "nearest way that was tried: ROMFS, in place of" in text
    assert "SDRAM" not in " ".join(
        get_board("openmv-h7-plus").fit(Cost(10**9, 10**6)).reasons
    )


@pytest.mark.parametrize(
    ("board", "place"),
    [("openmv-h7-plus", "beside"), ("openmv-h7", "in place of"), ("openmv-n6", "in")],
)
def test_what_fits_is_told_for_what_there_is_room(board, place):
    fit = get_board(board).fit(Cost(100_000, 50_000))
    assert fit.fits
    assert fit.storage == "romfs"
    text = f"ROMFS has room for it {place}"
    assert any(reason.startswith(text) for reason in fit.reasons)
    assert fit.replaces_stock_models == (place != "beside")


def test_only_cameras_of_the_same_core_are_offered():
    for name, other in (("openmv-h7", "openmv-ae3"), ("openmv-ae3", "openmv-h7-plus")):
        with pytest.raises(BudgetError) as caught:
            get_board(name).check(Cost(100_000, 5_000_000))
        assert other not in str(caught.value)
    with pytest.raises(BudgetError, match="no other camera with a Cortex-M55 fits it"):
        get_board("openmv-ae3").check(Cost(100_000, 5_000_000))


def test_a_board_argument_may_be_a_name():
    board = get_board("openmv-h7")
    budget = Budget(ram_bytes=1)
    assert as_board("OPENMV4") == board
    assert as_board(board) is board
    assert as_board(budget) is budget


@pytest.mark.parametrize("board", [None, 5, ["openmv-h7"]])
def test_what_is_no_board_is_told_how_to_get_one(board):
    with pytest.raises(ValueError, match=r"Received: board=.*omv\.get_board"):
        as_board(board)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": None}, "Received: name=None"),
        ({"name": ["openmv-h7"]}, "Received: name="),
        ({"name": "openmv-h7", "firmware": 5.0}, r"Received: firmware=5\.0.*'5\.0'"),
    ],
)
def test_names_and_releases_are_texts(arguments, message):
    with pytest.raises(ValueError, match=message):
        get_board(**arguments)


def test_every_board_has_the_source_of_its_core_and_clock():
    for name, entry in DATA["boards"].items():
        assert entry["source"].startswith("boards/")
        assert ":" in entry["source"]
        assert entry["source"] in get_board(name).sources
        assert (entry["npu"] is not None) == ("NPU:" in entry["source"])


def test_a_budget_goes_wherever_a_board_does():
    budget = Budget(flash_bytes=1000)
    assert budget.fit(Cost(1000, 10**9)).fits
    assert budget.flash_limit_bytes == 1000
    with pytest.raises(BudgetError, match=r"at most 1,000 bytes .*1 bytes over"):
        budget.check(Cost(1001, 1))
    common = {"name", "core", "label", "flash_limit_bytes", "ram_limit_bytes"}
    assert all(hasattr(kind, key) for kind in (Board, Budget) for key in common)


@pytest.mark.parametrize("limit", [0, -1, "100KB", 0.5, True])
def test_a_budget_is_positive_whole_bytes(limit):
    with pytest.raises(ValueError, match="Expected positive bytes or None"):
        Budget(ram_bytes=limit)


def test_bytes_are_shown_in_units_of_1024():
    shown = [format_bytes(count) for count in (512, 1024, 12_640, 3 * 1024 * 1024)]
    assert shown == ["512 B", "1.00 KiB", "12.34 KiB", "3.00 MiB"]


def test_the_rooms_load_no_tensorflow():
    code = (
        "import sys, keras_omv.boards, keras_omv.arena, keras_omv.cost;"
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
