"""The command line as users meet it."""

import json
import re

import keras
import numpy as np
import pytest
from PIL import Image

import keras_omv as omv
from keras_omv.cli import main
from keras_omv.images import load_digits

NAMES = ("left", "right")


@pytest.fixture
def images(tmp_path):
    """A folder of real files: two classes, brighter on one side."""
    random = np.random.default_rng(0)
    for index, name in enumerate(NAMES):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 100, (40, 48, 3))
            pixels[:, 24 * index : 24 * index + 24] += 120
            picture = Image.fromarray(pixels.astype("uint8"))
            picture.save(folder / f"{number:02}.png")
    return tmp_path / "images"


def fails(capsys, *arguments):
    with pytest.raises(SystemExit, match="1"):
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


@pytest.mark.filterwarnings("ignore:Zeros among the weights")
def test_train_makes_a_camera_folder_and_says_so(images, tmp_path, capsys):
    out = tmp_path / "camera"
    main(
        ["train", str(images), "--board", "openmv-h7-plus", "--out", str(out),
         "--epochs", "2", "--alpha", "0.05", "--resolution", "32",
         "--batch-size", "8", "--sparsity", "0.5"]
    )  # fmt: skip
    screen = capsys.readouterr().out
    for text in ("MobileNetV2 alpha 0.05", "flash", "RAM", "accuracy, int8", "yes"):
        assert text in screen
    assert "off by 3.8% on average" in " ".join(screen.split())
    assert "main.py" in screen
    report = json.loads((out / "report.json").read_text())
    assert report["class_names"] == ["left", "right"]
    assert report["quantization"] == "trained"
    assert (out / "model.tflite").stat().st_size == report["flash_bytes"]
    main(["verify", str(out), "--data", str(images)])
    assert f"{out}: passed" in capsys.readouterr().out


def test_the_accuracy_on_digits_is_measured_again(tmp_path, capsys):
    data = load_digits(resolution=16)
    layers = keras.layers.Rescaling(1 / 255), keras.layers.Flatten()
    scores = keras.layers.Dense(10, activation="softmax")
    omv.export(
        keras.Sequential([keras.Input((16, 16, 1)), *layers, scores]),
        tmp_path / "camera",
        board="openmv-h7",
        class_names=data.class_names,
        representative_data=data.train_images,
        evaluation_data=(data.test_images, data.test_labels),
    )
    main(["verify", str(tmp_path / "camera"), "--data", "digits"])
    shown = capsys.readouterr().out
    assert "passed" in shown
    assert "not measured again" not in shown


def test_train_shrinks_a_network_that_does_not_fit(images, tmp_path, capsys):
    out = tmp_path / "camera"
    main(
        ["train", str(images), "--board", "openmv-h7", "--out", str(out),
         "--epochs", "2", "--alpha", "0.35", "--resolution", "64",
         "--batch-size", "8", "--shrink", "--quiet"]
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    dense = omv.estimate(alpha=0.35, resolution=64, classes=2)
    assert not omv.get_board("openmv-h7").fit(dense).fits
    assert report["flash_bytes"] < dense.flash_bytes
    assert report["fits"]


def test_export_takes_a_saved_model_and_a_folder_of_images(images, tmp_path, capsys):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.save(tmp_path / "model.keras")
    out = tmp_path / "camera"
    main(
        ["export", str(tmp_path / "model.keras"), "--board", "OPENMV4P",
         "--out", str(out), "--data", str(images), "--quiet",
         "--threshold", "0.6", "--roi", "40", "0", "240", "240"]
    )  # fmt: skip
    assert capsys.readouterr().out == ""
    script = (out / "main.py").read_text()
    assert "THRESHOLD = 0.6" in script
    assert "ROI = (40, 0, 240, 240)" in script
    assert json.loads((out / "report.json").read_text())["quantization"] == "calibrated"
    main(["verify", str(out)])
    assert "accuracy was not measured again" in capsys.readouterr().out
    main(["verify", str(out), "--data", str(images)])
    assert "not measured" not in capsys.readouterr().out
    main(["verify", str(out), "--data", str(images), "--json"])
    assert json.loads(capsys.readouterr().out)["accuracy_measured"] is True
    for path in (images / "left").iterdir():
        Image.new("RGB", (48, 40)).save(path)
    assert fails(capsys, "verify", out, "--data", images) == ""
    (out / "main.py").write_text(script.replace("TOP = 3", "TOP = 1"))
    main(["verify", str(out)])
    assert "main.py was edited after the export" in capsys.readouterr().out
    main(["verify", str(out), "--json"])
    assert json.loads(capsys.readouterr().out)["edited"] == ["main.py"]
    (out / "labels.txt").write_text("right\nleft\n")
    assert fails(capsys, "verify", out, "--data", tmp_path / "not looked at") == ""
    main(["cost", str(out / "model.tflite"), "--board", "openmv-h7-plus", "--json"])
    cost = json.loads(capsys.readouterr().out)
    assert cost["flash_bytes"] == (out / "model.tflite").stat().st_size
    assert cost["fit"]["fits"] is True
    main(["cost", str(tmp_path / "model.keras")])
    assert "RAM" in capsys.readouterr().out


def test_boards_lists_every_camera(capsys):
    main(["boards"])
    screen = capsys.readouterr().out
    main(["boards", "--json"])
    names = [board["name"] for board in json.loads(capsys.readouterr().out)]
    assert len(names) == 10
    assert all(name in screen for name in names)


def test_bad_input_is_one_line_on_stderr_and_leaves_nothing(images, tmp_path, capsys):
    out = tmp_path / "camera"
    board = ("--board", "openmv-h7-plus", "--out", out)
    error = fails(capsys, "train", images, "--board", "openmv-h7-plsu", "--out", out)
    assert "openmv-h7-plus" in error
    assert "does not exist" in fails(capsys, "train", tmp_path / "no", *board)
    (images / "empty").mkdir()
    assert "empty" in fails(capsys, "train", images, *board)
    (images / "empty").rmdir()
    (images / "left" / "broken.jpg").write_bytes(b"not a picture")
    error = fails(capsys, "train", images, *board, "--resolution", 32, "--alpha", 0.05)
    assert "broken.jpg" in error
    error = fails(capsys, "train", images, *board, "--smooth", 1)
    assert "argument `smooth`" in error
    assert "No MobileNetV2" in fails(
        capsys, "train", images, "--board", "openmv-m7", "--out", out,
        "--alpha", 1.4, "--resolution", 224,
    )  # fmt: skip
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    error = fails(
        capsys, "train", images, "--board", "openmv-h7", "--out", tmp_path / "notes"
    )
    assert "notes" in error
    assert not out.exists()


LEVERS = ("--alpha", "0.35", "--resolution", "96", "--classes", "5")


def test_cost_of_levers_says_what_is_over_and_what_would_fit(capsys):
    main(["cost", *LEVERS, "--board", "openmv-h7"])
    screen = " ".join(capsys.readouterr().out.split())
    for text in ("fits openmv-h7 │ no", "bytes over", "depth 15 instead of 17 fits"):
        assert text in screen
    assert "openmv-h7-plus takes it as it is" in screen
    main(["cost", *LEVERS, "--board", "openmv-h7", "--json"])
    cost = json.loads(capsys.readouterr().out)
    assert cost["fit"]["fits"] is False
    assert cost["fit"]["flash_over_bytes"] > 0
    assert {"alpha", "depth", "board"} <= {change["what"] for change in cost["changes"]}


def test_cost_of_levers_that_fit_says_where_they_go(capsys):
    main(["cost", *LEVERS, "--board", "openmv-h7-plus"])
    screen = " ".join(capsys.readouterr().out.split())
    for text in ("fits openmv-h7-plus │ yes", "stored in │ romfs", "arena in │ SRAM1"):
        assert text in screen
    main(["cost", *LEVERS, "--grey", "--head", "64", "--depth", "3", "--json"])
    small = json.loads(capsys.readouterr().out)
    assert small["fit"] is None
    assert small["flash_bytes"] < 20_000


def test_cost_needs_a_file_or_levers(tmp_path, capsys):
    assert "--resolution 96 --classes 5" in fails(capsys, "cost", "--alpha", 0.35)
    error = fails(capsys, "cost", tmp_path / "model.keras", *LEVERS)
    assert "model.keras and alpha=0.35" in error
    assert "depth=3" in fails(capsys, "cost", tmp_path / "model.keras", "--depth", 3)
    assert ".tflite" in fails(capsys, "cost", tmp_path / "x.txt")
    error = fails(capsys, "cost", tmp_path / "missing.tflite")
    assert "missing.tflite', which does not exist" in error


def test_cost_shows_where_the_ram_goes(capsys):
    main(["cost", *LEVERS])
    screen = " ".join(capsys.readouterr().out.split())
    for text in ("activations", "scratch", "per-channel data", "structures"):
        assert text in screen
    for text in ("peak │ DEPTHWISE_CONV_2D block_1_depthwise", "parameters"):
        assert text in screen
    assert "time of one image, estimate" in screen
    assert "off by 3.8% on average" in screen
    main(["cost", *LEVERS, "--json"])
    cost = json.loads(capsys.readouterr().out)
    assert sum(cost["ram_breakdown"].values()) == cost["ram_bytes"]
    assert cost["peak_op"]["kind"] == "DEPTHWISE_CONV_2D"
    assert cost["peak_op"]["name"] == "block_1_depthwise"


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_model_file_with_code_inside_is_refused(suffix, tmp_path, capsys):
    layers = [keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x + 1)]
    path = tmp_path / f"model.{suffix}"
    keras.Sequential(layers).save(path)
    assert "arbitrary code execution" in fails(capsys, "cost", path)


def test_short_times_have_a_decimal(capsys):
    main(["cost", "--alpha", "0.05", "--resolution", "32", "--classes", "2"])
    assert re.search(
        r"estimate +│ \d\.\d ms \(\d\.\d to \d\.\d\)", capsys.readouterr().out
    )


def test_the_n6_fits_only_what_is_compiled(capsys):
    main(["cost", *LEVERS, "--board", "openmv-n6"])
    screen = " ".join(capsys.readouterr().out.split())
    assert "fits openmv-n6 │ only after compiling with stedgeai" in screen


def test_a_lever_of_zero_is_an_error(tmp_path, capsys):
    board = ("--board", "openmv-h7-plus", "--out", tmp_path / "camera")
    for lever in ("alpha", "resolution"):
        assert f"Received: {lever}=0" in fails(capsys, "train", *board, f"--{lever}", 0)


def test_boards_of_an_unknown_release_name_the_known_ones(capsys):
    error = fails(capsys, "boards", "--firmware", "9.9")
    assert "4.8.1, 5.0.0. Received: '9.9'" in error


def test_space_where_nothing_fits_says_what_the_smallest_lacks(capsys):
    nothing = ("space", "--board", "openmv-m7", "--classes", 100_000)
    error = fails(capsys, *nothing)
    assert "No MobileNetV2 that was tried fits. The smallest" in error
    assert "bytes over" in error


def test_space_says_how_many_fit_in_all(capsys):
    space = ["space", "--board", "openmv-m7", "--classes", "2", "--grey"]
    main([*space, "--json"])
    count = len(json.loads(capsys.readouterr().out))
    main([*space, "--limit", "2"])
    assert f"2 of {count}, --limit shows more" in capsys.readouterr().out
    main([*space, "--limit", str(count)])
    assert "shows more" not in capsys.readouterr().out
    main([*space, "--limit", "2", "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_space_lists_what_fits_the_largest_first(capsys):
    main(["space", "--board", "openmv-m7", "--classes", "2", "--grey", "--limit", "5"])
    screen = capsys.readouterr().out
    assert "romfs" in screen
    assert "estimates" in screen
    assert "…" not in screen
    main(["space", "--board", "openmv-m7", "--classes", "2", "--grey", "--json"])
    points = json.loads(capsys.readouterr().out)
    assert points
    macs = [point["macs"] for point in points]
    assert macs == sorted(macs, reverse=True)
    assert {point["channels"] for point in points} == {1}
    assert {"storage", "arena_memory", "latency_ms_range"} <= set(points[0])
    assert "limit=0" in fails(
        capsys, "space", "--board", "openmv-m7", "--classes", 2, "--limit", 0
    )


def test_deploy_takes_a_port_or_a_drive(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["deploy", "camera", "--port", "COM3", "--drive", "E:"])
    assert "not allowed with argument --port" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["deploy", "selftest"])
def test_what_goes_to_a_camera_is_a_folder_of_an_export(command, tmp_path, capsys):
    error = fails(capsys, command, tmp_path)
    assert "which has no report.json. Next step: keras-omv export" in error
