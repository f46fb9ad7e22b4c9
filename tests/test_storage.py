"""ROMFS partitions: what an export puts there, what stays, and what does not fit."""

import dataclasses
import json

import exports
import pytest

import keras_omv as omv
from keras_omv import romfs, storage
from keras_omv.boards import board_names, get_board, known_releases
from keras_omv.errors import BudgetError, ExportError
from keras_omv.report_check import check_folder

H7 = get_board("openmv-h7")
FILES = {"model.tflite": bytes(range(256)) * 20, "labels.txt": b"cat\ndog\n"}
STOCK = {"eye.cascade": b"E" * 999, "fomo.tflite": b"F" * 60_000, "lib/a.txt": b"face"}


@pytest.fixture(scope="module")
def model():
    return exports.make_model(knows=False)


def export(folder, model, **options):
    """An export that measures no accuracy, which is quicker."""
    return exports.make_export(folder, model, **{"evaluation_data": None, **options})


def boards_with_romfs():
    for name in board_names():
        for firmware in known_releases():
            try:
                board = get_board(name, firmware=firmware)
            except ValueError:  # the release has no such camera
                continue
            if board.romfs_bytes:
                yield board


def test_every_camera_with_a_partition_takes_an_image():
    boards = list(boards_with_romfs())
    assert {board.firmware for board in boards} >= {"4.7.0", "4.8.1", "5.0.0"}
    for board in boards:
        assert romfs.read_image(storage.image_for(board, FILES)) == FILES


def test_a_partition_is_filled_to_its_last_byte_and_not_further():
    rest = len(romfs.write_image({"a": b""}))
    full = H7.romfs_bytes - rest
    assert len(storage.image_for(H7, {"a": bytes(full)})) == H7.romfs_bytes
    message = (
        r"openmv-h7 \(firmware 5.0.0\). Expected at most 131,072 bytes \(128.00 KiB\). "
        r"Received: 131,074 bytes .*, 2 bytes over. Next step: a smaller model"
    )
    with pytest.raises(BudgetError, match=message):
        storage.image_for(H7, {"a": bytes(full + 2)})


def test_a_release_before_romfs_says_where_the_files_go():
    board = get_board("openmv-h7", firmware="4.6.20")
    with pytest.raises(ValueError, match=r"firmware 4.6.20\). Next step: copy the"):
        storage.image_for(board, FILES)


def test_too_many_kept_files_are_named_with_their_sizes():
    message = (
        r"bytes over. Kept files, the largest first: fomo.tflite \(58.59 KiB\), "
        r"eye.cascade \(999 B\), lib/a.txt \(4 B\). Next step: keep fewer files"
    )
    with pytest.raises(BudgetError, match=message):
        storage.image_for(H7, {"m": bytes(80_000)}, kept={**STOCK, "m": b"older"})


def test_an_image_that_does_not_read_back_is_not_returned(monkeypatch):
    def flipped(files):
        return romfs.write_image(files).replace(b"cat", b"bat")

    monkeypatch.setattr(storage, "write_image", flipped)
    with pytest.raises(ExportError, match="does not read back"):
        storage.image_for(H7, FILES)


def as_image(folder):
    (folder / "rom.img").write_bytes(romfs.write_image(STOCK, alignment=4))
    return folder / "rom.img"


def as_partition(folder):
    image = romfs.write_image(STOCK).ljust(H7.romfs_bytes, b"\xff")
    (folder / "rom.img").write_bytes(image)
    return str(folder / "rom.img")


def as_folder(folder):
    for path, content in {**STOCK, ".DS_Store": b"", ".git/config": b""}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def as_files(folder):
    return STOCK


@pytest.mark.parametrize("form", [as_image, as_partition, as_folder, as_files])
def test_stock_models_come_as_an_image_a_folder_or_files(tmp_path, form):
    assert storage.read_stock_models(form(tmp_path)) == STOCK


@pytest.mark.parametrize(
    ("stock_models", "error", "message"),
    [
        ("nowhere/rom.img", ExportError, "cannot be read.*nowhere/rom.img"),
        (__file__, ExportError, "Not a ROMFS image"),
        (5, ValueError, "stock_models=5. Next step"),
    ],
)
def test_stock_models_that_cannot_be_read_are_refused(stock_models, error, message):
    with pytest.raises(error, match=message):
        storage.read_stock_models(stock_models)


@pytest.mark.parametrize(
    "board", [omv.Budget(), get_board("openmv-h7", firmware="4.5.9")]
)
def test_an_export_without_romfs_refuses_stock_models(tmp_path, model, board):
    with pytest.raises(ValueError, match="Expected a camera with a ROMFS"):
        export(tmp_path / "out", model, board=board, stock_models=STOCK)
    assert not (tmp_path / "out").exists()


def test_an_export_writes_an_image_of_model_and_labels(tmp_path, model):
    made = export(tmp_path / "out", model)
    image = (made.folder / "romfs.img").read_bytes()
    files = {n: (made.folder / n).read_bytes() for n in ("model.tflite", "labels.txt")}
    assert romfs.read_image(image) == files
    assert [image.index(content) % 32 for content in files.values()] == [0, 0]
    assert dict(made.report.romfs.files) == {n: len(c) for n, c in files.items()}
    written = json.loads(made.text("report.json"))
    assert written["romfs"]["size_bytes"] == len(image)
    assert written["romfs"]["partition_bytes"] == 131_072
    page = made.text("report.html")
    assert "mpremote romfs deploy romfs.img" in page
    assert "models are not in it" in page


def test_an_image_of_an_export_keeps_the_files_that_it_is_given(tmp_path, model):
    made = export(tmp_path / "out", model, stock_models=STOCK)
    stored = romfs.read_image((made.folder / "romfs.img").read_bytes())
    assert {path: stored[path] for path in STOCK} == STOCK
    assert sorted(stored) == sorted([*STOCK, "labels.txt", "model.tflite"])
    assert "what you kept, 3 more files, is in it too" in made.text("report.html")
    assert check_folder(made.folder) == ()


def test_stock_models_that_fill_the_partition_are_over_the_budget(tmp_path, model):
    stock = {"person_detect.tflite": bytes(130_000)}
    with pytest.raises(BudgetError, match=r"Kept files.*person_detect"):
        export(tmp_path / "out", model, stock_models=stock)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "board",
    [omv.Budget(), get_board("openmv-h7", firmware="4.6.20")],
    ids=["budget", "before ROMFS"],
)
def test_without_romfs_there_is_no_image(tmp_path, model, board):
    made = export(tmp_path / "out", model, board=board)
    assert made.report.romfs is None
    assert not (made.folder / "romfs.img").exists()
    assert "romfs.img" not in made.text("report.html")
    assert check_folder(made.folder) == ()


def test_a_model_that_lives_on_the_drive_leaves_romfs_as_it_is(tmp_path, model):
    board = dataclasses.replace(H7, romfs_bytes=2048)
    options = {"board": board, "stock_models": STOCK}
    made = export(tmp_path / "out", model, **options)
    assert made.report.fit.storage == "flash"
    assert not (made.folder / "romfs.img").exists()


def test_an_image_of_an_older_export_does_not_stay(tmp_path, model):
    folder = tmp_path / "out"
    export(folder, model)
    export(folder, model, board=omv.Budget())
    assert not (folder / "romfs.img").exists()


@pytest.fixture
def folder(tmp_path, model):
    return export(tmp_path / "out", model).folder


def test_an_image_with_another_model_is_found(folder):
    path = folder / "romfs.img"
    files = dict(romfs.read_image(path.read_bytes()))
    path.write_bytes(romfs.write_image({**files, "model.tflite": b"another"}))
    found = check_folder(folder)
    assert "romfs.img was changed: its SHA-256 is not the one in report.json" in found
    assert "romfs.img is not what keras_omv writes for this report" in found


def test_a_damaged_image_is_found(folder):
    path = folder / "romfs.img"
    path.write_bytes(path.read_bytes()[:-99])
    assert any("a record is cut off" in text for text in check_folder(folder))


def test_a_missing_image_is_found(folder):
    (folder / "romfs.img").unlink()
    assert "romfs.img is missing" in check_folder(folder)


def test_an_image_that_no_report_lists_is_found(tmp_path, model):
    made = export(tmp_path / "out", model, board=omv.Budget())
    (made.folder / "romfs.img").write_bytes(romfs.write_image(FILES))
    found = check_folder(made.folder)
    assert "romfs.img is none of the files that report.json lists" in found


def test_openmv_ota_mounts_the_image_of_an_export(folder):
    container = pytest.importorskip("openmv_ota.romfs.container")
    reader = container.VfsRomReader((folder / "romfs.img").read_bytes())
    entries = {path: entry for path, entry in reader.walk() if not entry.is_dir}
    assert sorted(entries) == ["labels.txt", "model.tflite"]
    assert all(entry.data_offset % 32 == 0 for entry in entries.values())
    for path, entry in entries.items():
        assert entry.data == (folder / path).read_bytes()
