"""Accuracy: on the device's arithmetic, and as the camera sees the images."""

import dataclasses
import hashlib
import re

import exports
import numpy as np
import pytest
import tensorflow as tf

import keras_omv as omv
from keras_omv import camera, evaluation, evaluation_data, flatbuffer, verify
from keras_omv.evaluation import (
    DeviceRun,
    measure_device,
    run_device,
)
from keras_omv.evaluation_data import check_pixels, gather, to_pixels
from keras_omv.sampling import spread_places
from keras_omv.verify import Scores


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exports.make_export(tmp_path_factory.mktemp("camera") / "out")


@pytest.fixture(scope="module")
def network(exported):
    return flatbuffer.read((exported.folder / "model.tflite").read_bytes())


def test_accuracies_of_model_view_and_device_are_counted_on_the_same_images(exported):
    accuracy = exported.report.accuracy
    assert accuracy.images == len(exported.labels)
    model = exports.make_model()
    scores = model.predict(exported.images, verbose=0)
    assert accuracy.float32 == np.mean(scores.argmax(axis=1) == exported.labels)
    assert 0.5 < accuracy.int8 < 1
    assert accuracy.agreement >= evaluation.WANTED_AGREEMENT
    assert accuracy.warnings == ()


def test_the_confusion_matrix_counts_each_image_once(exported, network):
    run = run_device(network, exported.images.astype("uint8"), exported.labels)
    counts = np.array(measure_device(run).confusion)
    for truth in range(3):
        for predicted in range(3):
            both = (exported.labels == truth) & (run.scores.classes == predicted)
            assert counts[truth, predicted] == both.sum()
    assert np.trace(counts) / counts.sum() == run.accuracy


def test_recall_is_the_share_of_each_class_and_none_without_images(exported, network):
    chosen = exported.labels != 1
    pixels = exported.images[chosen].astype("uint8")
    run = run_device(network, pixels, exported.labels[chosen])
    first, second, _ = measure_device(run).recall
    assert first == np.mean(run.is_right[run.labels == 0])
    assert second is None


def test_the_cameras_eyes_see_what_the_firmware_makes_of_the_images(exported, network):
    pixels = exported.images.astype("uint8")
    run = run_device(network, pixels, exported.labels)
    seen = verify.run_network(network, camera.see(pixels, 12))
    measured = measure_device(run).camera
    assert measured.images == len(pixels)
    assert measured.int8 == np.mean(seen.classes == exported.labels)
    assert measured.int8_clean == run.accuracy


def test_pixels_that_rgb565_keeps_are_not_run_again(exported, network, monkeypatch):
    kept = camera.see(exported.images.astype("uint8"), 12)
    run = run_device(network, kept, exported.labels)
    monkeypatch.setattr(verify, "run_network", None)
    measured = measure_device(run).camera
    assert measured.int8 == measured.int8_clean == run.accuracy


def test_of_many_images_the_camera_sees_some_from_all_over_them(
    exported, network, monkeypatch
):
    run = run_device(network, exported.images.astype("uint8"), exported.labels)
    monkeypatch.setattr(evaluation, "CAMERA_IMAGES", 10)
    measured = measure_device(run).camera
    chosen = spread_places(len(run.labels), 10)
    assert measured.images == 10
    assert measured.int8_clean == np.mean(run.is_right[chosen])


def test_hashes_tell_other_scores_images_and_labels_apart(exported, network):
    pixels = exported.images.astype("uint8")
    run = run_device(network, pixels, exported.labels)
    first = measure_device(run)
    digest = hashlib.sha256(pixels.tobytes() + run.labels.astype("<i8").tobytes())
    assert first.data_sha256 == digest.hexdigest()
    relabelled = dataclasses.replace(run, labels=run.labels[::-1])
    assert measure_device(relabelled).data_sha256 != first.data_sha256
    scores = Scores(run.scores.values[::-1], run.scores.runtime)
    other = measure_device(dataclasses.replace(run, scores=scores))
    assert other.scores_sha256 != first.scores_sha256


def test_the_surest_mistakes_come_first():
    values = np.array([[100, -100], [-100, 100], [0, 1], [127, -128]], "int8")
    labels = np.array([0, 0, 0, 1])
    pixels = np.zeros((4, 2, 2, 1), "uint8")
    run = DeviceRun(None, pixels, labels, Scores(values, verify.TFLM))
    found = run.worst_mistakes(2)
    assert [(m.index, m.label, m.predicted) for m in found] == [(3, 1, 0), (1, 0, 1)]
    assert [m.confidence for m in found] == [255 / 256, 228 / 256]


def test_a_single_sigmoid_is_as_sure_of_no_as_of_yes():
    values = np.array([[-128], [127]], "int8")
    pixels = np.zeros((2, 2, 2, 1), "uint8")
    run = DeviceRun(None, pixels, np.array([1, 0]), Scores(values, verify.TFLM))
    confidences = [mistake.confidence for mistake in run.worst_mistakes(2)]
    assert confidences == [1.0, 255 / 256]


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"agreement": 0.98}, r"agree on 98\.0% of the images; at least 99%"),
        ({"fake_quantized": 0.1}, r"points apart; at most 0\.3 are expected"),
        ({"runtime": verify.LITERT}, "may differ from the camera by a step"),
    ],
)
def test_what_is_not_as_promised_is_a_warning(exported, changes, warning):
    accuracy = dataclasses.replace(exported.report.accuracy, **changes)
    (found,) = accuracy.warnings
    assert re.search(warning, found)


@pytest.mark.parametrize("input_range", [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)])
def test_images_become_the_pixels_that_they_were_made_of(input_range):
    low, high = input_range
    pixels = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
    images = (pixels / 255 * (high - low) + low).astype("float32")
    assert np.array_equal(to_pixels(images, input_range), pixels)
    assert to_pixels(images - 9999, input_range).max() == 0


def test_data_comes_as_arrays_or_a_dataset_with_numbers_or_one_hot_rows():
    images, labels = exports.make_images(10)
    one_hot = np.eye(3)[labels]
    dataset = tf.data.Dataset.from_tensor_slices((images, one_hot)).batch(4)
    for data in ((images, labels), [images, one_hot], dataset):
        found_images, found_labels = gather(data)
        assert np.array_equal(found_images, images)
        assert np.array_equal(found_labels, labels)
    assert np.array_equal(gather(dataset, limit=6)[0], images[:6])
    some_images, some_labels = gather((images, one_hot), limit=6)
    chosen = spread_places(10, 6)
    assert np.array_equal(some_images, images[chosen])
    assert np.array_equal(some_labels, labels[chosen])


def test_images_of_another_size_are_refused(exported, network):
    with pytest.raises(omv.DatasetError, match=r"\(n, 12, 12, 3\).*\(90, 6, 12, 3\)"):
        run_device(network, exported.images[:, :6].astype("uint8"), exported.labels)


@pytest.mark.parametrize("input_range", [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)])
def test_images_on_the_models_scale_pass_and_one_level_beyond(input_range):
    low, high = input_range
    images = np.linspace(low, high, 12).reshape(1, 2, 2, 3)
    check_pixels(images, input_range)
    check_pixels(images * 0.5, input_range)
    check_pixels(images + 0.9 * (high - low) / 255, input_range)
    with pytest.raises(omv.DatasetError, match="with pixels in"):
        check_pixels(images + 2 * (high - low) / 255, input_range)


@pytest.mark.parametrize("value", [np.nan, np.inf, -9.0])
def test_images_that_are_no_pixels_are_refused(value):
    images = np.full((2, 1, 1, 3), 9.0)
    images[1, 0, 0, 2] = value
    with pytest.raises(omv.DatasetError, match=r"pixels in \[0, 255\]"):
        check_pixels(images, (0, 255))


def test_a_generator_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(evaluation_data, "MOST_IMAGES", 100)

    def forever():
        while True:
            yield np.zeros((12, 12, 3), "float32"), 1

    shapes = (tf.TensorSpec((12, 12, 3)), tf.TensorSpec((), tf.int64))
    dataset = tf.data.Dataset.from_generator(forever, output_signature=shapes)
    with pytest.raises(omv.DatasetError, match=r"at most 100 images.*\.take"):
        gather(dataset.batch(8))
    assert len(gather(dataset.batch(8).take(12))[0]) == 96
    assert len(gather(dataset.batch(8), limit=20)[0]) == 20


def test_pixels_of_many_images_are_those_of_each(monkeypatch):
    images = np.random.default_rng(0).uniform(-1, 1, (10, 3, 3, 1))
    whole = to_pixels(images, (-1, 1))
    monkeypatch.setattr(evaluation_data, "_AT_ONCE", 4)
    assert np.array_equal(to_pixels(images, (-1, 1)), whole)
