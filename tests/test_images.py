import collections
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_omv.errors import DatasetError
from keras_omv.images import load_digits, load_image_folder, stratified_split

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path, colour=RED, *, size=(12, 10), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def save_classes(root, counts, *, suffix="png"):
    for name, count in counts.items():
        for index in range(count):
            save(root / name / f"{index}.{suffix}", (index * 10, 0, 0))
    return root


def save_pair(root):
    """Two classes of two images each, for tests that then add one file."""
    return save_classes(root, {"cat": 2, "dog": 2})


def load_one(path, *, resolution=4, channels=3):
    """Load one picture through the public door: four copies, two classes."""
    root = path.parent / "data"
    for name in ("a/0", "a/1", "b/0", "b/1"):
        target = root / f"{name}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    data = load_image_folder(root, resolution=resolution, channels=channels)
    return data.train_images[0]


def sides(data):
    counts = (collections.Counter(data.train_labels.tolist()),)
    return (*counts, collections.Counter(data.test_labels.tolist()))


# ------------------------------------------------------------------- the folder


def test_classes_are_ordered_by_name_and_arrays_are_what_fit_takes(tmp_path):
    root = save_classes(tmp_path, {"dog": 5, "Zebra": 5, "cat": 10})
    data = load_image_folder(root, resolution=(6, 8))
    assert data.class_names == ("Zebra", "cat", "dog")
    assert data.train_images.shape == (16, 6, 8, 3)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert sides(data) == ({0: 4, 1: 8, 2: 4}, {0: 1, 1: 2, 2: 1})
    assert data.skipped == ()


def test_every_image_lands_on_one_side_with_its_label(tmp_path):
    for label, name in enumerate("ab"):
        for index in range(6):
            save(tmp_path / name / f"{index}.png", (index * 40, label * 255, 0))
    data = load_image_folder(tmp_path, resolution=1, validation_split=0.4)
    images = np.concatenate([data.train_images, data.test_images])[:, 0, 0]
    labels = np.concatenate([data.train_labels, data.test_labels])
    assert (images[:, 1] == labels * 255).all()
    assert sorted(images[:, 0]) == sorted(2 * [0, 40, 80, 120, 160, 200])


def test_the_split_depends_on_the_seed_alone(tmp_path):
    root = save_classes(tmp_path, {"a": 20, "b": 20})
    first = load_image_folder(root, resolution=1, seed=3)
    again = load_image_folder(root, resolution=1, seed=3)
    other = load_image_folder(root, resolution=1, seed=4)
    np.testing.assert_array_equal(first.train_images, again.train_images)
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert (first.train_images != other.train_images).any()


@pytest.mark.parametrize("test_name", ["test", "val", "validation", "valid", "Test"])
def test_a_folder_of_train_and_test_is_taken_with_that_split(tmp_path, test_name):
    save_classes(tmp_path / "train", {"cat": 3, "dog": 4})
    save_classes(tmp_path / test_name, {"cat": 1, "dog": 2})
    data = load_image_folder(tmp_path, resolution=4)
    assert data.class_names == ("cat", "dog")
    assert sides(data) == ({0: 3, 1: 4}, {0: 1, 1: 2})


def test_of_test_and_validation_the_test_folder_is_taken_and_that_is_said(
    tmp_path, caplog
):
    for name, count in {"train": 2, "test": 1, "val": 3}.items():
        save_classes(tmp_path / name, {"cat": count, "dog": count})
    data = load_image_folder(tmp_path, resolution=4)
    assert sides(data)[1] == {0: 1, 1: 1}
    assert "Not used" in caplog.text
    assert "val" in caplog.text


def test_classes_may_be_called_train_and_test(tmp_path):
    root = save_classes(tmp_path, {"train": 3, "test": 3})
    assert load_image_folder(root, resolution=4).class_names == ("test", "train")


def test_the_training_folder_alone_is_a_data_set_too(tmp_path):
    save_classes(tmp_path / "train", {"cat": 5, "dog": 5})
    data = load_image_folder(tmp_path / "train", resolution=4)
    assert sides(data) == ({0: 4, 1: 4}, {0: 1, 1: 1})


def test_clutter_is_passed_over(tmp_path):
    root = save_pair(tmp_path)
    for name in ("cat/.DS_Store", "cat/Thumbs.db", "dog/notes.txt", "labels.csv"):
        (root / name).write_bytes(b"clutter")
    for name in (
        ".git/x.png",
        "__MACOSX/x.png",
        "dog/.cache/x.png",
        "dog/@eaDir/x.png",
    ):
        save(root / name)
    data = load_image_folder(root, resolution=4)
    assert data.class_names == ("cat", "dog")
    assert len(data.train_labels) + len(data.test_labels) == 4


def test_progress_counts_to_the_number_of_images(tmp_path):
    save_classes(tmp_path / "train", {"cat": 3, "dog": 4})
    save_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    calls = []
    load_image_folder(
        tmp_path, resolution=4, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, 9) for done in range(1, 10)]


def test_an_interrupt_in_progress_comes_through(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt("Ctrl-C")

    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        load_image_folder(save_pair(tmp_path), resolution=4, progress=interrupt)


# ------------------------------------------------------------------- the pixels


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "bmp", "gif", "webp", "tiff", "ppm", "JPG"]
)
def test_common_formats_are_read(tmp_path, suffix):
    picture = load_one(save(tmp_path / f"x.{suffix}", (200, 100, 40)))
    assert abs(picture.astype(int) - (200, 100, 40)).max() <= 6


def test_the_middle_square_is_taken(tmp_path):
    image = Image.new("RGB", (30, 10), RED)
    image.paste(GREEN, (10, 0, 20, 10))
    image.save(tmp_path / "x.png")
    assert (load_one(tmp_path / "x.png", resolution=10) == GREEN).all()


def test_a_target_that_is_not_square_takes_the_part_of_its_shape(tmp_path):
    image = Image.new("RGB", (40, 40), RED)
    image.paste(BLUE, (0, 10, 40, 30))
    image.save(tmp_path / "x.png")
    assert (load_one(tmp_path / "x.png", resolution=(10, 20)) == BLUE).all()


def test_the_camera_that_took_the_picture_may_have_been_turned(tmp_path):
    image = Image.new("RGB", (8, 8), RED)
    image.paste(BLUE, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "x.png", exif=exif)
    picture = load_one(tmp_path / "x.png", resolution=8)
    assert tuple(picture[0, 0]) == RED
    assert tuple(picture[-1, 0]) == BLUE


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, (17, 130, 250), (255, 255, 255)])
def test_grey_is_the_cameras_grey(tmp_path, colour):
    red, green, blue = colour
    picture = load_one(save(tmp_path / "x.png", colour), channels=1)
    assert picture.shape == (4, 4, 1)
    assert (picture == (38 * red + 75 * green + 15 * blue) >> 7).all()


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_grey_image_keeps_its_levels(tmp_path, level):
    path = save(tmp_path / "x.png", level, mode="L")
    assert (load_one(path, channels=1) == level).all()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (0, 0, 255, 255), BLUE),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("LA", (9, 255), (9, 9, 9)),
        ("P", 0, (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("I;16", 0x1234, (0x12, 0x12, 0x12)),
    ],
)
def test_every_kind_of_png_becomes_rgb(tmp_path, mode, colour, expected):
    path = save(tmp_path / "x.png", colour, mode=mode)
    assert (load_one(path) == expected).all()


def test_a_transparent_palette_becomes_white(tmp_path):
    path = save(tmp_path / "x.png", 0, mode="P", transparency=bytes([0]))
    assert (load_one(path) == 255).all()


def test_a_16_bit_pgm_keeps_its_upper_bits(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5 2 2 65535\n" + b"\xab\xcd" * 4)
    assert (load_one(tmp_path / "x.pgm", resolution=2) == 0xAB).all()


def test_cmyk_photographs_are_read(tmp_path):
    path = save(tmp_path / "x.jpg", (0, 0, 0, 0), mode="CMYK")
    assert (load_one(path) > 250).all()


# -------------------------------------------------------------- unreadable images


def truncated(root):
    path = save(root / "cat" / "cut.jpg", size=(64, 64))
    path.write_bytes(path.read_bytes()[:-200])
    return path


def not_an_image(root):
    (root / "cat" / "film.mp4").write_bytes(b"no image")
    return root / "cat" / "film.mp4"


def empty_file(root):
    (root / "cat" / "none.png").write_bytes(b"")
    return root / "cat" / "none.png"


def floats(root):
    return save(root / "cat" / "float.tiff", 0.5, mode="F")


BAD_FILES = [truncated, not_an_image, empty_file, floats]


@pytest.mark.parametrize("spoil", BAD_FILES)
def test_an_unreadable_image_is_refused_by_name(tmp_path, spoil):
    path = spoil(save_pair(tmp_path))
    with pytest.raises(DatasetError, match="Unreadable images") as caught:
        load_image_folder(tmp_path, resolution=4)
    assert str(path) in str(caught.value)
    assert 'on_bad_image="skip"' in str(caught.value)


@pytest.mark.parametrize("spoil", BAD_FILES)
def test_an_unreadable_image_is_skipped_and_reported_on_demand(tmp_path, spoil, caplog):
    path = spoil(save_pair(tmp_path))
    data = load_image_folder(tmp_path, resolution=4, on_bad_image="skip")
    assert len(data.train_labels) + len(data.test_labels) == 4
    ((skipped, reason),) = data.skipped
    assert skipped == path
    assert reason
    assert str(path) in caplog.text


def test_the_first_five_unreadable_images_of_both_sides_are_named(tmp_path):
    for side in ("train", "test"):
        save_pair(tmp_path / side)
        for index in range(4):
            (tmp_path / side / "cat" / f"bad{index}.jpg").write_bytes(b"x")
    with pytest.raises(DatasetError, match="and 3 more") as caught:
        load_image_folder(tmp_path, resolution=4)
    assert str(tmp_path / "test" / "cat" / "bad0.jpg") in str(caught.value)


def test_a_class_without_readable_images_is_refused(tmp_path):
    root = save_pair(tmp_path)
    (root / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"'dog' has too few images.*Received: 1"):
        load_image_folder(root, resolution=4, on_bad_image="skip")


# ------------------------------------------------------------------ other errors


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere, which does not exist"):
        load_image_folder(tmp_path / "nowhere", resolution=4)


def test_a_file_is_no_folder(tmp_path):
    path = save(tmp_path / "x.png")
    with pytest.raises(DatasetError, match=r"x\.png, which is a file"):
        load_image_folder(path, resolution=4)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="Received: an empty folder"):
        load_image_folder(tmp_path, resolution=4)


def test_images_without_class_folders_are_refused(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png")
    with pytest.raises(DatasetError, match=r"2 files directly in it.*into a folder"):
        load_image_folder(tmp_path, resolution=4)


def test_one_class_is_refused_with_a_hint_at_the_folder_inside(tmp_path):
    save_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    with pytest.raises(DatasetError, match=r"only one class folder, 'train'.*or give"):
        load_image_folder(tmp_path, resolution=4)


def test_an_empty_class_folder_is_named(tmp_path):
    (save_pair(tmp_path) / "owl").mkdir()
    (tmp_path / "owl" / "readme.txt").write_bytes(b"soon")
    with pytest.raises(DatasetError, match=r"'owl' cannot be used.*no images.*remove"):
        load_image_folder(tmp_path, resolution=4)


@pytest.mark.parametrize("also_direct", [False, True])
def test_images_one_level_too_deep_are_refused(tmp_path, also_direct):
    save(save_pair(tmp_path) / "owl" / "snowy" / "males" / "0.png")
    if also_direct:
        save(tmp_path / "owl" / "0.png")
    with pytest.raises(
        DatasetError, match=r"'owl' cannot be used.*snowy.*move them up"
    ):
        load_image_folder(tmp_path, resolution=4)


def test_a_class_with_one_image_cannot_be_split(tmp_path):
    save_classes(tmp_path, {"cat": 2, "dog": 1})
    calls = []
    with pytest.raises(DatasetError, match=r"'dog' has too few images. Expected 2"):
        load_image_folder(tmp_path, resolution=4, progress=lambda *n: calls.append(n))
    assert calls == [], "that is known before anything is read"


def test_train_and_test_must_hold_the_same_classes(tmp_path):
    save_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    save_classes(tmp_path / "test", {"cat": 1, "owl": 1})
    with pytest.raises(DatasetError, match=r"only in one of them \['dog', 'owl'\]"):
        load_image_folder(tmp_path, resolution=4)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_a_class_folder_with_a_line_break_is_refused(tmp_path):
    save_classes(tmp_path, {"cat": 2, "d\nog": 2})
    with pytest.raises(DatasetError, match=r"'d\\nog': it holds a line break"):
        load_image_folder(tmp_path, resolution=4)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"resolution": 0}, "resolution"),
        ({"resolution": 4.5}, "resolution"),
        ({"resolution": (4, 4, 3)}, "resolution"),
        ({"resolution": "4"}, "resolution"),
        ({"resolution": 4, "channels": 4}, "channels"),
        ({"resolution": 4, "on_bad_image": "ignore"}, "on_bad_image"),
        ({"resolution": 4, "validation_split": 0}, "validation_split"),
        ({"resolution": 4, "validation_split": 1.0}, "validation_split"),
    ],
)
def test_a_bad_argument_is_named(tmp_path, options, argument):
    with pytest.raises(ValueError, match=f"argument `{argument}`.*Expected.*Received"):
        load_image_folder(save_pair(tmp_path), **options)


# -------------------------------------------------------------------- the digits


def test_the_digits_are_real_images_at_the_asked_resolution():
    data = load_digits(resolution=24)
    assert data.class_names == tuple("0123456789")
    assert data.train_images.shape[1:] == (24, 24, 1)
    assert len(data.train_labels) + len(data.test_labels) == 1797
    assert (data.train_images.min(), data.train_images.max()) == (0, 255)
    assert set(data.test_labels.tolist()) == set(range(10))


def test_the_digits_at_8x8_are_scikit_learns_levels():
    from sklearn import datasets

    data = load_digits(resolution=8)
    levels = set(np.unique(data.train_images).tolist())
    assert levels == {round(level * 255 / 16) for level in range(17)}
    sums = np.concatenate([data.train_images, data.test_images]).sum(axis=(1, 2, 3))
    expected = np.round(datasets.load_digits().images * 255 / 16).sum(axis=(1, 2))
    np.testing.assert_array_equal(np.sort(sums), np.sort(expected))


def test_the_digits_in_colour_are_the_same_grey_three_times():
    grey = load_digits(resolution=(8, 10))
    colour = load_digits(resolution=(8, 10), channels=3)
    assert colour.train_images.shape[1:] == (8, 10, 3)
    np.testing.assert_array_equal(
        colour.train_images, np.repeat(grey.train_images, 3, axis=-1)
    )


def test_the_digits_refuse_bad_arguments():
    with pytest.raises(ValueError, match="argument `channels`"):
        load_digits(resolution=8, channels=2)


# --------------------------------------------------------------------- the split


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("counts", [(2, 2), (2, 50), (7, 13, 100)])
def test_a_split_gives_each_side_some_of_each_class_and_loses_none(fraction, counts):
    labels = np.random.default_rng(0).permutation(np.repeat(range(len(counts)), counts))
    train, test = stratified_split(labels, fraction, 0)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        expected = min(max(round(fraction * count), 1), count - 1)
        assert (labels[test] == label).sum() == expected


def test_a_split_is_shuffled_and_repeatable():
    labels = np.repeat([0, 1], 50)
    train, test = stratified_split(labels, 0.2, 7)
    assert len(set(labels[train[:20]])) == 2
    again = stratified_split(labels, 0.2, 7)
    np.testing.assert_array_equal(again[0], train)
    np.testing.assert_array_equal(again[1], test)


def test_a_split_needs_two_of_each_class():
    with pytest.raises(DatasetError, match=r"1 of class 3\."):
        stratified_split(np.array([0, 0, 3]), 0.5, 0)


def test_importing_images_loads_no_tensorflow():
    code = (
        "import sys, keras_omv.images; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
