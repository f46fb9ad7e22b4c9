"""ROMFS images: written, read, and mounted by MicroPython itself."""

import subprocess

import hypothesis
import hypothesis.strategies as st
import mutants
import pytest

from keras_omv import romfs
from keras_omv.errors import ExportError

# Mounts images with MicroPython's own reader, without any of our code: prints the
# index of the image, and where each file starts, its path and its content.
WITNESS = """
import os, sys, uctypes, vfs

def walk(folder):
    for name, kind, *_ in os.ilistdir(folder):
        if kind == 0x4000:
            walk(folder + "/" + name)
            continue
        with open(folder + "/" + name, "rb") as file:
            offset = uctypes.addressof(file) - uctypes.addressof(image)
            path = (folder + "/" + name)[len("/rom/"):].encode().hex()
            content = file.read().hex() or ""  # of b"" the hex is b""
            print(index, offset, path, content, sep=",")

folder, count = sys.argv[1:]
for index in range(int(count)):
    with open("%s/%d.img" % (folder, index), "rb") as file:
        image = file.read()
    vfs.mount(vfs.VfsRom(image), "/rom")
    walk("/rom")
    vfs.umount("/rom")
"""
HEADER = b"\xd2\xcd\x31"
FILES = {"model.tflite": bytes(range(256)) * 20, "labels.txt": b"cat\ndog\n"}
STOCK = {"fomo.tflite": b"F" * 60_000, "fomo.txt": b"face\n", "eye.cascade": b"E" * 999}
TREE = {
    **STOCK,
    "lib/deep/er/model.tflite": b"deep" * 99,
    "lib/deep/x": b"",
    "lib/katze und hündin.txt": "hündin\n".encode(),
    "z": b"last",
}

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
alignments = st.sampled_from([1, 2, 4, 8, 16, 32, 64, 8192])
thoroughly = hypothesis.settings(max_examples=200, deadline=None, derandomize=True)


def is_tree(files):
    """Whether no file is also a directory of another one."""
    return not any(other.startswith(path + "/") for path in files for other in files)


trees = st.dictionaries(paths, st.binary(max_size=300), max_size=8).filter(is_tree)


@pytest.fixture
def mounted(micropython, tmp_path):
    """Return a function that mounts images and gives the files MicroPython sees.

    For each image a dictionary of `(offset, content)` by path, where the offset is
    from the image's first byte.
    """

    def mount(images):
        for index, image in enumerate(images):
            (tmp_path / f"{index}.img").write_bytes(image)
        (tmp_path / "witness.py").write_text(WITNESS)
        done = subprocess.run(
            [*micropython, "witness.py", str(tmp_path), str(len(images))],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        found = [{} for _ in images]
        for line in done.stdout.splitlines():
            index, offset, path, content = line.split(",")
            file = (int(offset), bytes.fromhex(content))
            found[int(index)][bytes.fromhex(path).decode()] = file
        return found

    return mount


def contents(files):
    return {path: content for path, (_, content) in files.items()}


def record(kind, *parts):
    payload = b"".join(parts)
    assert len(payload) < 128
    return bytes([kind, len(payload)]) + payload


def image_of(*records):
    payload = b"".join(records)
    assert len(payload) < 128
    return HEADER + bytes([len(payload)]) + payload


def file_of(name, *records):
    return record(5, bytes([len(name)]), name, *records)


def folder_of(name, *records):
    return record(4, bytes([len(name)]), name, *records)


A = file_of(b"a", record(2, b"one"))


@thoroughly
@hypothesis.given(trees, alignments)
def test_what_is_written_is_read(files, alignment):
    image = romfs.write_image(files, alignment=alignment)
    assert romfs.read_image(image) == files
    assert len(image) % 2 == 0


@thoroughly
@hypothesis.given(trees, alignments)
def test_every_payload_is_aligned(files, alignment):
    marked = {
        path: b"<payload %d>" % index + files[path] for index, path in enumerate(files)
    }
    image = romfs.write_image(marked, alignment=alignment)
    for content in marked.values():
        assert image.index(content) % alignment == 0


@thoroughly
@hypothesis.given(trees, st.binary(max_size=40))
def test_what_follows_the_image_in_its_partition_is_left_out(files, rest):
    assert romfs.read_image(romfs.write_image(files) + rest) == files


def test_the_order_of_the_files_stays():
    assert list(romfs.read_image(romfs.write_image(TREE))) == list(TREE)


def test_an_image_without_files_is_an_image(mounted):
    image = romfs.write_image({})
    assert romfs.read_image(image) == {}
    assert mounted([image]) == [{}]


@pytest.mark.parametrize("alignment", [1, 4, 16, 32, 4096])
def test_micropython_mounts_the_image_and_reads_the_same_bytes(mounted, alignment):
    (found,) = mounted([romfs.write_image(TREE, alignment=alignment)])
    assert contents(found) == TREE
    assert [offset % alignment for offset, _ in found.values()] == [0] * len(TREE)


def test_micropython_agrees_on_a_model_in_a_whole_partition(mounted):
    image = romfs.write_image(FILES)
    (found,) = mounted([image.ljust(131_072, b"\xff")])
    assert contents(found) == FILES


def test_damaged_images_that_are_read_are_read_as_micropython_does(mounted):
    small = {path: content[:40] for path, content in TREE.items()}
    originals = [(romfs.write_image(small, alignment=4), [])]
    accepted = {}
    for image in mutants.mutants(originals, 1500):
        try:
            accepted[image] = romfs.read_image(image)
        except ExportError:
            continue
    assert 200 < len(accepted) < 1400
    for files, found in zip(accepted.values(), mounted(accepted), strict=True):
        assert contents(found) == files


HAND_MADE = {
    "nothing": (image_of(), {}),
    "a file": (image_of(A), {"a": b"one"}),
    "a directory": (image_of(folder_of(b"lib", A)), {"lib/a": b"one"}),
    "an empty directory": (image_of(folder_of(b"lib"), A), {"a": b"one"}),
    "padding": (image_of(record(1, b"\xff"), A, record(1)), {"a": b"one"}),
    "an unknown kind": (image_of(b"\x81\x00" + b"\x01?", A), {"a": b"one"}),
    "the largest kind": (image_of(b"\x8f\xff\xff\xff\x7f\0", A), {"a": b"one"}),
    "a note in a file": (
        image_of(file_of(b"a", record(7, b"note"), record(2, b"one"))),
        {"a": b"one"},
    ),
    "two contents": (
        image_of(file_of(b"a", record(2, b"one"), record(2, b"two"))),
        {"a": b"one"},
    ),
    "content elsewhere": (
        image_of(record(1, b"one"), file_of(b"a", record(3, b"\x03\x02"))),
        {"a": b"one"},
    ),
    "padded numbers": (
        HEADER + b"\x80\x80\x0d\x80\x05\x80\x09\x80\x01a\x02\x80\x80\x80\x01!",
        {"a": b"!"},
    ),
}


@pytest.mark.parametrize(("image", "files"), HAND_MADE.values(), ids=HAND_MADE)
def test_images_made_by_hand_are_read_as_micropython_does(mounted, image, files):
    assert romfs.read_image(image) == files
    assert contents(mounted([image])[0]) == files


DAMAGED = {
    "nothing": (b"", "starts with b''"),
    "an erased partition": (b"\xff" * 64, "starts with b'.xff.xff.xff'"),
    "a model": (b"\x1c\0\0\0TFL3", "starts with b'.x1c"),
    "the beginning alone": (HEADER, "a number is cut off, at byte 3"),
    "a cut image": (image_of(A)[:-1], "a record is cut off, at byte 0"),
    "a cut record": (image_of(A[:-1]), "a record is cut off, at byte 4"),
    "no kind": (image_of(A, record(0)), "a record has no kind"),
    "a number of 33 bits": (
        image_of(b"\x90\x80\x80\x80\x01\0"),
        "a number is too large",
    ),
    "an endless number": (HEADER + b"\xff" * 2_000_000, "a number is too large"),
    "a long name": (image_of(record(5, b"\x04a"), A), "a name is cut off"),
    "a name of bytes": (image_of(file_of(b"\xff", record(2))), "is not UTF-8"),
    "no name": (image_of(file_of(b"", record(2))), "no file can have the name ''"),
    "a way out": (image_of(folder_of(b"..", A)), "no file can have the name '..'"),
    "a path": (image_of(file_of(b"a/b", record(2))), "have the name 'a/b'"),
    "the same twice": (image_of(A, A), "'a' is there twice"),
    "a file that is a directory": (image_of(A, folder_of(b"a")), "is there twice"),
    "no content": (image_of(file_of(b"a")), "a file has no content"),
    "content outside": (
        image_of(file_of(b"a", record(3, b"\x20\0"))) + b"\xff" * 64,
        "lies outside",
    ),
    "half a pointer": (image_of(file_of(b"a", record(3, b"\x03"))), "is cut off"),
}


@pytest.mark.parametrize(("image", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_images_are_refused_with_the_reason(image, message):
    with pytest.raises(ExportError, match=message):
        romfs.read_image(image)


def test_contents_that_overlap_cannot_fill_the_memory():
    files = (file_of(b"%d" % index, record(3, b"\x20\0")) for index in range(9))
    with pytest.raises(ExportError, match="hold more bytes than the image"):
        romfs.read_image(image_of(*files))


def test_endless_directories_are_refused():
    image = b""
    for _ in range(20_000):
        payload = b"\x01d" + image
        image = b"\x04" + romfs._encode(len(payload), 3) + payload
    image = HEADER + romfs._encode(len(image), 3) + image
    with pytest.raises(ExportError, match="too long"):
        romfs.read_image(image)


@thoroughly
@hypothesis.given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_our_error(data):
    for image in (data, HEADER + data, image_of(data[:120])):
        try:
            romfs.read_image(image)
        except ExportError:
            continue


def test_damaged_images_raise_nothing_but_our_error():
    image = romfs.write_image(TREE | {"fomo.tflite": b"F"}, alignment=2)
    refused = 0
    for mutant in mutants.mutants([(image, [])], 5000, seed=1):
        try:
            romfs.read_image(mutant)
        except ExportError as error:
            refused += "Next step" in str(error)
    assert 1000 < refused < 5000


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "no file can have"),
        ("/model.tflite", "no file can have"),
        ("lib//a", "no file can have"),
        ("lib/", "no file can have"),
        ("../a", "no file can have"),
        ("a\0", "no file can have"),
        ("\ud800", "UTF-8 cannot write it"),
        ("ü" * 128, "more than 255 bytes"),
        ("a/b", "'a' is a file"),
        ("d", "it is a directory"),
    ],
)
def test_paths_that_no_file_can_have_are_refused(path, problem):
    with pytest.raises(ValueError, match=f"{problem}.*Next step"):
        romfs.write_image({"a": b"", "d/a": b"", path: b""})


def test_the_longest_path_is_written_and_read():
    files = {"é" * 120 + "/" + "n" * 14: b"1"}
    assert romfs.read_image(romfs.write_image(files)) == files


def test_a_text_is_no_content():
    with pytest.raises(ValueError, match=r"Expected bytes\. Received: str"):
        romfs.write_image({"labels.txt": "cat"})


@pytest.mark.parametrize("alignment", [0, -32, 24, 16384])
def test_alignments_that_no_partition_keeps_are_refused(alignment):
    with pytest.raises(ValueError, match=f"alignment={alignment}. Next step"):
        romfs.write_image(FILES, alignment=alignment)


def test_openmv_ota_reads_our_images_and_we_read_its():
    container = pytest.importorskip("openmv_ota.romfs.container")
    ascii_tree = {path: TREE[path] for path in TREE if path.isascii()}
    reader = container.VfsRomReader(romfs.write_image(ascii_tree))
    found = {path: entry for path, entry in reader.walk() if not entry.is_dir}
    assert {path: entry.data for path, entry in found.items()} == ascii_tree
    assert all(entry.data_offset % 32 == 0 for entry in found.values())
    writer = container.VfsRomWriter([{"extension": "tflite", "alignment": 16}])
    writer.mkfile("z", TREE["z"])
    writer.opendir("lib")
    writer.mkfile("model.tflite", FILES["model.tflite"])
    writer.closedir()
    files = {"z": TREE["z"], "lib/model.tflite": FILES["model.tflite"]}
    assert romfs.read_image(writer.finalize()) == files
