"""One dataset at every resolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_omv import camera, feeds
from keras_omv.errors import DatasetError
from keras_omv.feeds import Feed
from keras_omv.sampling import spread_places
from keras_omv.sources import FolderFeed, class_names_of, make_feeds

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (10, 40, 60, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


def feed(data, tmp_path, *, classes=3, channels=3):
    return Feed(data, classes=classes, channels=channels, cache_directory=tmp_path)


def forms():
    pair = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
    return {
        "arrays": (IMAGES, LABELS),
        "lists": (IMAGES.tolist(), LABELS.tolist()),
        "floats": (IMAGES.astype("float32"), LABELS),
        "columns": (IMAGES, LABELS[:, None]),
        "one-hot": (IMAGES, np.eye(3)[LABELS]),
        "single": pair,
        "batches": pair.batch(4),
        "weighted": pair.map(lambda x, y: (x, y, 1.0)).batch(4),
        "unknown length": pair.filter(lambda x, y: True).batch(4),
    }


@pytest.mark.parametrize("form", forms())
@pytest.mark.parametrize("channels", [1, 3])
def test_whatever_is_given_comes_as_the_camera_sees_it(form, channels, tmp_path):
    images, labels = feed(forms()[form], tmp_path, channels=channels).arrays(24)
    np.testing.assert_array_equal(images, camera.see(IMAGES, 24, channels))
    np.testing.assert_array_equal(labels, LABELS)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64


def test_images_of_many_sizes_come_in_one(tmp_path):
    sizes = [(30, 50), (64, 64), (17, 90)]

    def pictures():
        for label, size in enumerate(sizes):
            yield RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8), label

    signature = (
        tf.TensorSpec((None, None, 3), tf.uint8),
        tf.TensorSpec((), tf.int64),
    )
    data = tf.data.Dataset.from_generator(pictures, output_signature=signature)
    images, labels = feed(data, tmp_path).arrays(16)
    assert images.shape == (3, 16, 16, 3)
    assert list(labels) == [0, 1, 2]


@pytest.mark.parametrize("limit_bytes", [feeds.CACHE_LIMIT_BYTES, 1])
def test_each_resolution_is_scaled_once(limit_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "CACHE_LIMIT_BYTES", limit_bytes)
    reads = tf.Variable(0, dtype=tf.int64)

    def counted(image, label):
        reads.assign_add(1)
        return image, label

    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).map(counted)
    source = feed(data, tmp_path)
    before = int(reads)
    first = source.arrays(24)
    for _ in range(3):
        again = source.arrays(24)
        np.testing.assert_array_equal(first[0], again[0])
    assert int(reads) - before == len(IMAGES)
    assert any(tmp_path.iterdir()) == (limit_bytes == 1)


def test_a_limit_takes_images_from_all_over_and_fills_the_cache(tmp_path):
    source = feed((IMAGES, LABELS), tmp_path)
    images, labels = source.arrays(16)
    some = source.arrays(16, 4)
    chosen = spread_places(10, 4)
    assert len(chosen) == 4 < chosen[-1]
    np.testing.assert_array_equal(some[0], images[chosen])
    np.testing.assert_array_equal(some[1], labels[chosen])
    assert source.count == 10
    assert int(source.at(16).cardinality()) == 10


def test_what_does_not_fit_in_memory_is_forgotten_oldest_first(tmp_path, monkeypatch):
    source = feed((IMAGES, LABELS), tmp_path)
    monkeypatch.setattr(feeds, "CACHE_LIMIT_BYTES", 2 * 10 * 16 * 16 * 3)
    kept = source.at(16)
    source.at(15)
    assert source.at(16) is kept
    source.at(14)
    assert source.at(16) is kept
    assert len(source._scaled) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((IMAGES / 255.0, LABELS), "leave out the division by 255"),
        ((IMAGES, LABELS + 1), "Expected labels 0 to 2. Received: 1 to 3"),
        ((IMAGES, LABELS - 1), "Received: -1 to 1"),
        ((IMAGES, LABELS[:4]), r"as many labels.*\(10, 40, 60, 3\), labels \(4,\)"),
        ((IMAGES[:, 0], LABELS), "Expected images of shape"),
        (IMAGES, "Expected images and labels. Received: ndarray"),
        (None, "Expected images and labels. Received: NoneType"),
    ],
)
def test_data_that_cannot_be_used_is_refused(data, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        feed(data, tmp_path)


def test_datasets_that_cannot_be_used_are_refused(tmp_path):
    pair = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
    for data, message in [
        (pair.repeat(), "before .repeat"),
        (pair.take(0), "empty dataset"),
        (pair.map(lambda x, y: x), "Expected a dataset of images and labels"),
        (pair.map(lambda x, y: (x[0], y)), "Received: elements of shape"),
    ]:
        with pytest.raises(DatasetError, match=message):
            feed(data, tmp_path)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(5):
            pixels = RANDOM.integers(0, 256, (50, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_folder_is_split_the_same_way_at_every_resolution(folder):
    source = FolderFeed(folder, channels=3)
    assert source.class_names == ("cat", "dog")
    assert (source.train.count, source.validation.count) == (8, 2)
    small, large = source.train.arrays(16), source.train.arrays(32)
    np.testing.assert_array_equal(small[1], large[1])
    assert large[0].shape == (8, 32, 32, 3)
    elements = list(source.validation.at(32).as_numpy_iterator())
    assert [int(label) for _, label in elements] == list(
        source.validation.arrays(32)[1]
    )


def test_a_folder_is_read_once_for_each_resolution(folder):
    source = FolderFeed(folder, channels=1)
    assert source.data(16) is source.data(16)
    assert source.data(16).train_images.shape[-1] == 1


def test_a_folder_brings_its_own_images_to_judge_by(folder, tmp_path):
    options = {"channels": 3, "seed": 0, "cache_directory": tmp_path}
    train, validation = make_feeds(folder, None, None, classes=2, **options)
    assert (train.count, validation.count) == (8, 2)
    with pytest.raises(DatasetError, match="Expected a folder alone"):
        make_feeds(folder, None, (IMAGES, LABELS), classes=2, **options)
    with pytest.raises(DatasetError, match=r"Expected 5 class folders\. Received: 2"):
        make_feeds(folder, None, None, classes=5, **options)


def test_names_come_from_folders_and_from_keras_own_datasets(folder):
    assert class_names_of(folder) == ("cat", "dog")
    made = keras.utils.image_dataset_from_directory(folder, verbose=False)
    assert list(class_names_of(made)) == ["cat", "dog"]
    assert class_names_of((IMAGES, LABELS)) == ()
