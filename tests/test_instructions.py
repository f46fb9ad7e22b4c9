"""What to copy where is said for every camera, firmware and storage."""

import dataclasses

import pytest

from keras_omv import npu
from keras_omv.boards import Budget, board_names, get_board, known_releases
from keras_omv.instructions import copy_instructions
from keras_omv.storage import RomfsContents


@pytest.mark.parametrize("name", board_names())
def test_instructions_name_every_file_and_a_storage_that_the_camera_has(name):
    for firmware in known_releases():
        try:
            board = get_board(name, firmware=firmware)
        except ValueError:
            continue  # that camera came later
        text = copy_instructions(board)
        assert all(name in text for name in ("main.py", "model.tflite", "labels.txt"))
        assert "ROM File System" not in text or board.romfs_bytes
        assert "SD card" not in text or board.has_sd_card


@pytest.mark.parametrize(
    ("board", "drive"), [("openmv-m7", "96.00 KiB"), ("openmv-h7", "128.00 KiB")]
)
@pytest.mark.parametrize("firmware", ["4.5.5", "4.7.0", "5.0.0"])
def test_instructions_say_how_small_a_camera_drive_is_and_what_helps(
    board, firmware, drive
):
    text = copy_instructions(get_board(board, firmware=firmware))
    assert f"own drive takes {drive}: for larger files, put an SD card" in text


def test_instructions_mention_no_sd_card_where_there_is_no_slot():
    assert "SD card" not in copy_instructions(get_board("openmv-ae3"))
    assert "SD card" not in copy_instructions(Budget())


def test_instructions_mention_no_sd_card_where_the_drive_has_room():
    text = copy_instructions(get_board("openmv-h7"), storage="flash")
    assert "SD card" not in text


@pytest.mark.parametrize(
    ("board", "storage", "expected"),
    [
        ("openmv-n6", "", "compiles it for the NPU"),
        ("openmv-n6", "flash", "compiles it for the NPU"),
        ("openmv-ae3", "romfs", "compiles it for the NPU"),
        ("openmv-h7", "romfs", "write it to the camera. Copy main.py"),
        ("openmv-h7", "sdcard", "Put an SD card into the camera"),
        ("openmv-h7", "flash", "Copy main.py, model.tflite and labels.txt"),
    ],
)
def test_instructions_follow_the_storage(board, storage, expected):
    text = copy_instructions(get_board(board), storage=storage)
    assert expected in text


def test_instructions_make_room_where_the_stock_models_must_go():
    board = get_board("openmv-h7")
    text = copy_instructions(board, storage="romfs", replaces_stock_models=True)
    assert "ROM File System: delete models until there is room" in text


def image_with(*kept):
    names = ("model.tflite", "labels.txt", *kept)
    return RomfsContents(
        size_bytes=9, partition_bytes=99, files=dict.fromkeys(names, 3)
    )


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ((), "OpenMV's own models are not in it, OpenMV IDE's Reset brings them back"),
        (("fomo.tflite",), "what you kept, 1 more file, is in it too"),
        (("a", "b"), "what you kept, 2 more files, is in it too"),
    ],
)
def test_instructions_say_what_an_image_takes_away(kept, expected):
    board, romfs = get_board("openmv-h7-plus"), image_with(*kept)
    text = copy_instructions(board, storage="romfs", romfs=romfs)
    assert "mpremote romfs deploy romfs.img. It takes the place of all" in text
    assert expected in text
    own_way = "Or without it, and what is in /rom stays: In OpenMV IDE"
    assert text.index(own_way) < text.index("Copy main.py")


@pytest.mark.parametrize("kept", [(), ("fomo.tflite",)])
@pytest.mark.parametrize("replaces", [False, True])
def test_instructions_say_of_the_stock_models_only_what_holds(kept, replaces):
    text = copy_instructions(
        get_board("openmv-h7-plus"),
        storage="romfs",
        replaces_stock_models=replaces,
        romfs=image_with(*kept),
    )
    assert ("There is room for them: give them" in text) == (not kept and not replaces)
    assert ("what is in /rom stays" in text) == (not replaces)
    assert ("delete models until there is room" in text) == replaces
    assert ("OpenMV's own models are not in it" in text) == (not kept)


@pytest.mark.parametrize(
    ("board", "problem", "expected"),
    [
        ("openmv-ae3", npu.VELA_MISSING, "pip install 'keras-omv[npu]'"),
        ("openmv-n6", npu.STEDGEAI_MISSING, "stedgeai generate --target stm32n6"),
        ("openmv-n6", npu.STEDGEAI_MISSING, "A plain .tflite does not load"),
    ],
)
def test_instructions_say_why_there_is_no_compiled_file(board, problem, expected):
    camera = get_board(board)
    found = dataclasses.replace(npu.blank(camera), problem=problem)
    text = copy_instructions(camera, storage="romfs", npu=found)
    assert expected in text
    assert "the IDE compiles it for the NPU" in text


@pytest.mark.parametrize(
    ("board", "firmware", "storage", "known"),
    [
        ("openmv-h7", "4.6.20", "romfs", "flash, sdcard"),
        ("arduino-giga", "5.0.0", "sdcard", "romfs, flash"),
        ("openmv-m7", "5.0.0", "usb", "romfs, flash, sdcard"),
    ],
)
def test_a_storage_that_the_camera_lacks_is_refused(board, firmware, storage, known):
    camera = get_board(board, firmware=firmware)
    with pytest.raises(ValueError, match=f"Expected one of {known}, .*{storage}"):
        copy_instructions(camera, storage=storage)
