"""What `omv.export` writes, and what it refuses."""

import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keras_omv as omv
from keras_omv import flatbuffer, report_check
from keras_omv.verification import run_violations

BOARD = omv.get_board("openmv-h7-plus")
NAMES = ("dark", "bright")
FILES = [
    *("labels.txt", "main.py", "model.tflite", "model_desktop.tflite"),
    *("report.html", "report.json", "romfs.img"),
]


def make_data(count=120):
    """Colour images in [0, 255], dark or bright."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, count)
    images = (
        random.integers(0, 156, (count, 10, 10, 3)) + 100 * labels[:, None, None, None]
    )
    return images.astype("float32"), labels


def make_model(*, outputs=2, activation="softmax", rescale=True, train=True):
    model = keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            *([keras.layers.Rescaling(1 / 255)] if rescale else []),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(outputs, activation=activation),
        ]
    )
    loss = "binary_crossentropy" if outputs == 1 else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.05), loss, jit_compile=False)
    if train:
        images, labels = make_data()
        scaled = images if rescale else images / 255
        model.fit(scaled, labels, epochs=10, verbose=0)
    return model


def export(model, folder, **options):
    images, labels = make_data()
    defaults = {
        "board": BOARD,
        "class_names": NAMES,
        "representative_data": images,
        "evaluation_data": (images, labels),
    }
    return omv.export(model, folder, **{**defaults, **options})


def test_a_model_without_rounding_in_training_is_quantized_afterwards(tmp_path):
    report = export(make_model(), tmp_path / "camera")
    assert report.quantization == "calibrated"
    assert report.accuracy.float32 > 0.95
    assert report.accuracy.int8 == pytest.approx(report.accuracy.float32, abs=0.02)
    assert report.accuracy.agreement > 0.98
    assert sorted(path.name for path in (tmp_path / "camera").iterdir()) == FILES
    assert (tmp_path / "camera" / "labels.txt").read_bytes() == b"dark\nbright\n"


def test_a_board_can_be_named(tmp_path):
    report = export(make_model(train=False), tmp_path / "camera", board="OPENMV4P")
    assert report.board == "openmv-h7-plus"
    callback = omv.OpenMVExport(
        tmp_path / "camera",
        board="openmv-h7-plus",
        class_names=NAMES,
        representative_data=make_data()[0],
    )
    monitor = omv.BudgetMonitor("openmv-h7-plus")
    images, labels = make_data()
    make_model().fit(images, labels, verbose=0, callbacks=[monitor, callback])
    assert callback.report.board == "openmv-h7-plus"


def test_the_report_on_disk_is_the_report_returned(tmp_path):
    report = export(make_model(), tmp_path / "camera")
    written = json.loads((tmp_path / "camera" / "report.json").read_text())
    assert written["format"] == "keras_omv.report/3"
    size = (tmp_path / "camera" / "model.tflite").stat().st_size
    assert written["flash_bytes"] == report.cost.flash_bytes == size
    assert written["accuracy"]["int8"] == report.accuracy.int8
    assert written["board"] == "openmv-h7-plus"
    assert written["firmware"] == "5.0.0"


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = make_model()
    first, second = (export(model, tmp_path / name) for name in "ab")
    assert first.sha256 == second.sha256
    for name in FILES:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in "ab")
        assert one == other


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_models_are_exported_from_their_path(tmp_path, suffix):
    model = make_model()
    path = tmp_path / f"my_model{suffix}"
    model.save(path)
    from_path = export(path, tmp_path / "camera")
    assert from_path.sha256 == export(model, tmp_path / "again").sha256


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_other_types_than_int8_are_refused_with_the_reason(tmp_path, dtype):
    with pytest.raises(ValueError, match=f"TFLM has int8 kernels.*dtype='{dtype}'"):
        export(make_model(train=False), tmp_path / "camera", dtype=dtype)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [(0, 1, 1 / 255, -128), (-1, 1, 2 / 255, -1), (0, 255, 1.0, -128)],
)
def test_camera_pixel_p_becomes_p_minus_128(tmp_path, low, high, scale, zero_point):
    model = make_model(rescale=False, train=False)
    images, _ = make_data()
    scaled = images / 255 * (high - low) + low
    report = export(
        model, tmp_path / "camera", representative_data=scaled, evaluation_data=None
    )
    assert report.input_range == (low, high)
    file = (tmp_path / "camera" / "model.tflite").read_bytes()
    tensor = flatbuffer.read(file).input
    assert tensor.dtype == "int8"
    assert tensor.scales.tolist() == [np.float32(scale)]
    assert tensor.zero_points.tolist() == [zero_point]


def test_a_single_sigmoid_output_stands_for_two_classes(tmp_path):
    report = export(make_model(outputs=1, activation="sigmoid"), tmp_path / "camera")
    assert report.accuracy.int8 > 0.95


def test_logits_become_probabilities_on_the_camera(tmp_path):
    export(make_model(activation=None, train=False), tmp_path / "camera")
    file = (tmp_path / "camera" / "model.tflite").read_bytes()
    assert flatbuffer.read(file).ops[-1].kind == "SOFTMAX"


def test_the_desktop_file_opens_in_litert(tmp_path):
    export(make_model(train=False), tmp_path / "camera")
    path = tmp_path / "camera" / "model_desktop.tflite"
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 10, 10, 3]


def refused(folder, error, match, model=None, **options):
    with pytest.raises(error, match=match):
        export(make_model(train=False) if model is None else model, folder, **options)
    assert not folder.exists()
    assert not [path for path in folder.parent.iterdir() if "camera" in path.name]


def test_what_cannot_be_exported_is_refused_and_leaves_no_folder(tmp_path):
    camera = tmp_path / "camera"
    refused(camera, omv.DatasetError, "Expected 2 class names", class_names=["one"])
    refused(camera, omv.DatasetError, "line break", class_names=["a\nb", "c"])
    refused(
        camera, omv.ExportError, "Pass representative_data", representative_data=None
    )
    empty = np.zeros((0, 10, 10, 3))
    refused(camera, omv.ExportError, "empty", representative_data=empty)
    refused(camera, omv.BudgetError, "flash", board=omv.Budget(flash_bytes=500))
    refused(camera, omv.ExportError, "does not exist", model=tmp_path / "no.keras")
    (tmp_path / "text.keras").write_text("hello")
    refused(camera, omv.ExportError, "cannot load", model=tmp_path / "text.keras")
    (tmp_path / "model.onnx").write_text("hello")
    refused(camera, omv.ExportError, r"\.keras or \.h5", model=tmp_path / "model.onnx")
    images, labels = make_data()
    refused(
        camera,
        omv.DatasetError,
        "as many labels as images",
        evaluation_data=(images, labels[:5]),
    )


def test_images_that_do_not_fit_the_model_are_refused(tmp_path):
    camera = tmp_path / "camera"
    images, labels = make_data()
    for wrong in (images[:, :8], images[..., :1], images[0]):
        refused(camera, omv.DatasetError, "10, 10, 3", representative_data=wrong)
    unbatched = tf.data.Dataset.from_tensor_slices(images)
    refused(camera, omv.DatasetError, "batch", representative_data=unbatched)
    refused(camera, omv.DatasetError, "unscaled", representative_data=images / 255)
    refused(
        camera,
        omv.DatasetError,
        "labels 0 to 1",
        evaluation_data=(images, labels + 1),
    )
    endless = tf.data.Dataset.from_tensors((images, labels)).repeat()
    refused(camera, omv.DatasetError, "for ever", evaluation_data=endless)


def test_evaluation_images_on_another_scale_are_refused(tmp_path):
    camera = tmp_path / "camera"
    images, labels = make_data()
    dark = (images / 255, labels)
    refused(camera, omv.DatasetError, "from 0 to 1", evaluation_data=dark)
    model = make_model(rescale=False, train=False)
    scaled = {"representative_data": images / 255, "input_range": (0, 1)}
    bright = {**scaled, "evaluation_data": (images, labels)}
    refused(camera, omv.DatasetError, r"\[0, 1\].*to 255", model=model, **bright)


def test_a_network_that_tflm_does_not_run_is_not_written(tmp_path, monkeypatch):
    """Half of its file is refused by TFLM, with and without evaluation images."""
    monkeypatch.setattr(
        report_check,
        "run_violations",
        lambda network, file: run_violations(network, file[: len(file) // 2]),
    )
    refused(
        tmp_path / "camera",
        omv.ExportError,
        "Expected a network that runs",
        evaluation_data=None,
    )


def test_a_network_that_sees_nothing_is_written_with_a_warning(tmp_path, caplog):
    model = make_model(train=False)
    model.layers[-1].set_weights([np.zeros((6, 2)), np.array([1.0, -1.0])])
    report = export(model, tmp_path / "camera", evaluation_data=None)
    (warning,) = report.warnings
    assert "answers the same to 16 of 16 frames" in warning
    assert warning in caplog.text
    assert "answers the same" in (tmp_path / "camera" / "report.html").read_text()
    assert report_check.check_folder(tmp_path / "camera") == ()


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        images, labels = make_data()
        return images[index * 40 : index * 40 + 40], labels[
            index * 40 : index * 40 + 40
        ]


def test_images_come_in_every_form_that_fit_takes(tmp_path):
    images, labels = make_data()
    model = make_model(train=False)
    forms = (
        images,
        (images, labels),
        [images, labels],
        list(images),
        tf.data.Dataset.from_tensor_slices((images, labels)).batch(32),
        Batches(),
        (batch for batch in np.split(images, 4)),
    )
    hashes = {
        export(
            *(model, tmp_path / "camera"),
            representative_data=form,
            evaluation_data=None,
        ).sha256
        for form in forms
    }
    assert len(hashes) == 1


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = make_model(train=False)
    model.layers[1].kernel.assign(np.full((3, 3, 3, 6), np.nan))
    refused(tmp_path / "camera", omv.TrainingDivergedError, "conv2d", model=model)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(omv.ExportError, match="not"):
        export(make_model(train=False), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_model_over_the_budget_can_be_written_on_request(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = export(
            make_model(train=False),
            tmp_path / "camera",
            board=omv.Budget(flash_bytes=500),
            on_exceed="warn",
        )
    assert not report.fits
    assert "flash" in report.fit_reasons[0]


def test_importing_the_package_loads_no_tensorflow():
    code = (
        "import sys, keras_omv, keras_omv.cost, keras_omv.cli; "
        "loaded = {'tensorflow', 'keras', 'keras_tuner'} & set(sys.modules); "
        "sys.exit(len(loaded))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists():
    assert sorted(omv.__all__) == omv.__all__
    for name in omv.__all__:
        assert getattr(omv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = omv.nothing
