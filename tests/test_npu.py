"""Models for NPUs: compiled by Vela itself, and by a stedgeai that does as ST's."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys

import exports
import jsonschema
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite

import keras_omv as omv
from keras_omv import (
    ethos_u,
    flatbuffer,
    neuralart,
    npu,
    report_figures,
    romfs,
    screens,
    vela,
)
from keras_omv.architecture import network_of_levers
from keras_omv.boards import get_board
from keras_omv.errors import ExportError, ModelFileError
from keras_omv.report_check import check_folder
from keras_omv.report_files import compiled_differences
from keras_omv.sparsity import pruned_share, pruning_notes

AE3, N6 = get_board("openmv-ae3"), get_board("openmv-n6")
CORES = tuple(ethos_u.CORES)

# What the firmware's facts say of `stedgeai generate`: its arguments, the settings it
# reads, and where it leaves its result.
STEDGEAI = """#!{python}
import argparse, json, pathlib, sys

parser = argparse.ArgumentParser()
parser.add_argument("action", choices=["generate"])
for name in ("target", "model", "st-neural-art", "workspace", "output", "verbosity"):
    parser.add_argument("--" + name, required=True)
for name in ("relocatable", "quiet"):
    parser.add_argument("--" + name, action="store_true", required=True)
options = parser.parse_args()
profile, settings = options.st_neural_art.split("@")
chosen = json.loads(pathlib.Path(settings).read_text())["Profiles"][profile]
pools = json.loads(pathlib.Path(chosen["memory_pool"]).read_text())["memory"]
assert options.target == "stm32n6" and len(pools["mempools"]) == 6
model = pathlib.Path(options.model).read_bytes()
{then}
build = pathlib.Path(options.workspace) / "network_npu_reloc_build"
build.mkdir(parents=True)
(build / "network_rel.bin").write_bytes({mark} + model[::-1])
"""


@pytest.fixture(scope="module")
def model():
    return exports.make_model()


@pytest.fixture(scope="module", params=CORES)
def compiled(request, tmp_path_factory, model):
    """An export for each core of the AE3."""
    folder = tmp_path_factory.mktemp("camera") / "out"
    return exports.make_export(folder, model, board=request.param)


def export(folder, model, **options):
    """An export that measures no accuracy, which is quicker."""
    return exports.make_export(folder, model, **{"evaluation_data": None, **options})


@pytest.fixture
def without_vela(monkeypatch):
    monkeypatch.setattr(vela, "installed_version", lambda: "")


@pytest.fixture
def stedgeai(monkeypatch, tmp_path):
    """Returns a function that puts a stedgeai on the PATH."""

    def install(*, then="", mark="b'NBIN'"):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "stedgeai"
        program.write_text(STEDGEAI.format(python=sys.executable, then=then, mark=mark))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return install


def read(made, name="model.tflite"):
    return (made.folder / name).read_bytes()


# ------------------------------------------------------------------------- Vela


def test_the_ae3_gets_what_vela_compiles_in_its_romfs(compiled):
    stored = romfs.read_image(read(compiled, "romfs.img"))
    assert stored["model.tflite"] == read(compiled, "model_npu.tflite")
    assert stored["model.tflite"] != read(compiled)
    assert stored["labels.txt"] == read(compiled, "labels.txt")
    assert check_folder(compiled.folder) == ()


def test_the_compiled_file_is_one_operator_of_the_npu(compiled):
    """Seen by LiteRT's own reader of the format."""
    data = read(compiled, "model_npu.tflite")
    found = tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(data, 0))
    (graph,) = found.subgraphs
    assert [code.customCode for code in found.operatorCodes] == [b"ethos-u"]
    assert len(graph.operators) == 1
    ends = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
    assert [list(end.shape) for end in ends] == [[1, 12, 12, 3], [1, 3]]
    assert {end.type for end in ends} == {tflite.TensorType.INT8}
    scratch = graph.tensors[graph.operators[0].inputs[2]]
    assert compiled.report.npu.sram_bytes == np.prod(scratch.shape)
    assert compiled.report.npu.file_bytes == len(data)
    assert compiled.report.npu.cpu_ops == ()


def test_the_report_has_velas_figures(compiled):
    written = json.loads(compiled.text("report.json"))
    jsonschema.validate(written, report_figures.schema())
    said = written["npu"]
    core = ethos_u.CORES[written["board"]]
    assert said["compiler"] == f"ethos-u-vela {vela.installed_version()}"
    assert said["latency_ms"] == pytest.approx(
        said["cycles"] / core.clock_hz * 1e3, rel=1e-3
    )
    assert f"--accelerator-config {core.accelerator}" in said["command"]
    assert written["how"]["npu.latency_ms"].startswith("estimated: by ethos-u-vela")
    assert "before compilation" in written["how"]["ram_bytes"]
    page = re.sub(r"\s+", " ", compiled.text("report.html"))
    for text in (said["command"], f"{said['cycles']:,} cycles", "bits each"):
        assert text in page
    assert "computed as the camera computes" not in page


def test_the_screen_shows_what_the_compiler_said(compiled):
    rows = screens.npu_rows(compiled.report.npu)
    assert rows["RAM of the NPU"].endswith(" B")
    assert rows["time on the NPU, estimate"].endswith(" ms")
    assert set(screens.npu_rows(None)) == set()


def layered(network, zeros):
    """A network with weights at random, a share of them zero."""
    random = np.random.default_rng(0)

    def filled(tensor):
        if tensor.data is None or tensor.dtype != "int8":
            return tensor
        values = np.clip(np.rint(random.normal(0, 32, tensor.data.shape)), -127, 127)
        keep = random.random(values.shape) >= zeros
        return dataclasses.replace(tensor, data=(values * keep).astype("int8"))

    return dataclasses.replace(network, tensors=tuple(map(filled, network.tensors)))


def test_zeros_among_the_weights_shrink_the_compiled_file():
    dense = network_of_levers(omv.Levers(alpha=0.35, resolution=96, classes=5))
    sizes, bits = [], []
    for zeros in (0, 0.5, 0.9):
        network = layered(dense, zeros)
        data, found = npu.compile_for(AE3, flatbuffer.write(network), network)
        sizes.append(len(data))
        bits.append(found.bits_per_weight)
    assert sizes[1] < 0.75 * sizes[0]
    assert sizes[2] < 0.4 * sizes[0]
    assert bits[0] > 7 > bits[1] > 2.5 > bits[2]


def test_a_pruned_network_for_the_ae3_is_not_told_that_zeros_save_nothing(compiled):
    network = layered(flatbuffer.read(read(compiled)), 0.5)
    assert pruned_share(network) == pytest.approx(0.5, abs=0.1)
    assert pruning_notes(network, AE3) == ()
    assert pruning_notes(network, omv.get_board("openmv-rt1062")) != ()


def test_without_vela_the_folder_has_the_plain_model_and_says_what_to_install(
    tmp_path, model, without_vela
):
    made = export(tmp_path / "out", model, board=AE3)
    assert not (made.folder / "model_npu.tflite").exists()
    stored = romfs.read_image(read(made, "romfs.img"))
    assert stored["model.tflite"] == read(made)
    assert made.report.npu.problem == npu.VELA_MISSING
    shown = made.text("report.html").replace("&#39;", "'")
    assert "pip install 'keras-omv[npu]' and export again" in shown
    assert check_folder(made.folder) == ()


def test_without_vela_a_compiled_folder_is_still_judged(compiled, without_vela):
    assert check_folder(compiled.folder) == ()


def test_a_model_that_vela_refuses_costs_the_export_nothing(
    tmp_path, model, monkeypatch, caplog
):
    monkeypatch.setattr(vela, "arguments", lambda core: ("--optimise", "Nothing"))
    made = export(tmp_path / "out", model, board=AE3)
    assert "does not compile the model" in made.report.npu.problem
    assert "exit code 1: KeyError: 'Nothing'. Next step" in made.report.npu.problem
    assert "Not compiled for the Ethos-U55-256" in caplog.text
    assert not (made.folder / "model_npu.tflite").exists()


def test_vela_that_does_not_answer_is_stopped(monkeypatch, compiled):
    monkeypatch.setattr(vela, "LIMIT_SECONDS", 0.01)
    with pytest.raises(ExportError, match=r"no answer after 0\.01 seconds"):
        vela.compile_model(read(compiled), ethos_u.CORES["openmv-ae3"])


def test_a_file_for_the_other_core_is_refused(compiled):
    network = flatbuffer.read(read(compiled))
    data = read(compiled, "model_npu.tflite")
    for name in CORES:
        _, problems = npu.examine(get_board(name), data, network)
        is_its_own = name == compiled.report.board
        assert is_its_own == (problems == ())
        assert is_its_own or "are not for the ethos-u55" in problems[0]


def test_a_file_of_another_network_is_refused(compiled):
    images = exports.make_images()[0]
    other = export(
        compiled.folder.parent / "other",
        exports.make_model(knows=False),
        representative_data=images,
        input_range=(0, 255),
    )
    network = flatbuffer.read(read(other))
    scaled = dataclasses.replace(
        network.tensors[network.outputs[0]], shape=(1, 4), scales=np.ones(1, "f4")
    )
    tensors = list(network.tensors)
    tensors[network.outputs[0]] = scaled
    changed = dataclasses.replace(network, tensors=tuple(tensors))
    _, problems = npu.examine(AE3, read(compiled, "model_npu.tflite"), changed)
    assert "its output is not that of the model" in problems


def test_a_plain_file_is_not_taken_for_a_compiled_one(compiled):
    _, problems = npu.examine(AE3, read(compiled), flatbuffer.read(read(compiled)))
    assert problems == ("it leaves every operator to the CPU",)


def test_a_compiled_file_that_is_cut_is_refused(compiled):
    data, network = read(compiled, "model_npu.tflite"), flatbuffer.read(read(compiled))
    for size_bytes in (0, 4, 40, len(data) // 2, len(data) - 40):
        _, problems = npu.examine(AE3, data[:size_bytes], network)
        assert problems, size_bytes
    with pytest.raises(ModelFileError, match="Expected a sound"):
        ethos_u.examine(b"", network, ethos_u.CORES["openmv-ae3"])


def test_a_network_that_needs_more_ram_than_the_camera_has_is_refused(compiled):
    network, data = flatbuffer.read(read(compiled)), read(compiled, "model_npu.tflite")
    board = get_board(compiled.report.board)
    tiny = dataclasses.replace(board.heap[0], pool_bytes=24 * 1024 + 591)
    small = dataclasses.replace(board, heap=(tiny,))
    _, problems = npu.examine(small, data, network)
    assert problems == ("it needs 592 bytes of RAM, the camera has 591",)


def test_a_compiled_file_that_does_not_fit_romfs_costs_the_export_nothing(
    tmp_path, model
):
    """It is larger than the plain one, which ships then."""
    board = dataclasses.replace(AE3, romfs_bytes=5120, romfs_stock_bytes=None)
    made = export(tmp_path / "out", model, board=board)
    assert "do not fit ROMFS, which takes 4,096" in made.report.npu.problem
    stored = romfs.read_image(read(made, "romfs.img"))
    assert stored["model.tflite"] == read(made)


def rewrite(folder, **entries):
    """Changes entries of "npu" and signs the report anew."""
    path = folder / "report.json"
    content = json.loads(path.read_text("utf-8"))
    content.pop("content_sha256")
    content["npu"].update(entries)
    for name in content["files"]:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        content["files"][name] = digest
    path.write_text(report_figures.signed_text(content), "utf-8")


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        ("file_bytes", 1, "npu: report.json says"),
        ("sram_bytes", 1, "npu: report.json says"),
        ("cpu_ops", ["CONV_2D"], "npu: report.json says"),
        ("accelerator", "a larger one", "npu: report.json says"),
        ("command", "vela", "npu: report.json says"),
        ("problem", "none", "npu: report.json says"),
        ("compiler", "", "differ on whether model_npu.tflite is"),
        ("latency_ms", 0.001, "report.html"),
        ("cycles", 1, "report.html"),
        ("encoded_weight_bytes", 1, "report.html"),
        ("weight_bytes", "many", "has no camera, labels or figures"),
        ("extra", 1, "has no camera, labels or figures"),
    ],
)
def test_every_signed_lie_about_the_npu_is_found(
    compiled, tmp_path, entry, value, expected
):
    copied = shutil.copytree(compiled.folder, tmp_path / "copy")
    rewrite(copied, **{entry: value})
    assert any(expected in text for text in check_folder(copied))


def test_what_vela_did_not_make_is_found_by_making_it_again(compiled):
    report = json.loads(compiled.text("report.json"))
    files = {name: read(compiled, name) for name in report["files"]}
    inputs = flatbuffer.read(read(compiled)), get_board(compiled.report.board)
    assert list(compiled_differences(report, files, *inputs)) == []
    forged = bytearray(files["model_npu.tflite"])
    forged[len(forged) // 2] ^= 1
    files["model_npu.tflite"] = bytes(forged)
    report["npu"]["cycles"] += 1
    changed, cycles = compiled_differences(report, files, *inputs)
    assert changed.startswith("model_npu.tflite is not what ethos-u-vela")
    assert cycles.startswith("npu.cycles: report.json says")


# --------------------------------------------------------------------- stedgeai


def test_the_n6_gets_what_stedgeai_compiles_in_its_romfs(tmp_path, model, stedgeai):
    stedgeai()
    made = export(tmp_path / "out", model, board=N6)
    data = read(made, "model_npu.tflite")
    assert data == b"NBIN" + read(made)[::-1]
    assert romfs.read_image(read(made, "romfs.img"))["model.tflite"] == data
    assert made.report.npu.file_bytes == len(data)
    assert "Fits OpenMV" in made.text("report.html")
    assert check_folder(made.folder) == ()
    (made.folder / "model_npu.tflite").write_bytes(b"TFL3")
    found = check_folder(made.folder)
    assert "model_npu.tflite: it is not compiled for the N6" in found


def test_without_stedgeai_the_n6_is_told_the_command_that_works(
    tmp_path, model, stedgeai
):
    """The command of the report, run in the folder as it is, makes the file."""
    made = export(tmp_path / "out", model, board=N6)
    assert not (made.folder / "romfs.img").exists()
    assert not (made.folder / "model_npu.tflite").exists()
    shown = made.text("report.html")
    assert "A plain .tflite does not load on this camera" in shown
    assert made.report.npu.command in shown
    assert "Must be compiled" in shown
    assert check_folder(made.folder) == ()
    stedgeai()
    subprocess.run(made.report.npu.command.split(), cwd=made.folder, check=True)
    assert read(made, neuralart.COMPILED_FILE).startswith(b"NBIN")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"then": "sys.exit('E010(InvalidModelError): no')"}, "InvalidModelError"),
        ({"then": "sys.exit(0)"}, "no workspace/network_npu_reloc_build"),
        ({"mark": "b'TFL3'"}, "starts with b'NBIN'"),
    ],
)
def test_a_stedgeai_that_fails_costs_the_export_nothing(
    tmp_path, model, stedgeai, settings, problem
):
    stedgeai(**settings)
    made = export(tmp_path / "out", model, board=N6)
    assert problem in made.report.npu.problem
    assert not (made.folder / "romfs.img").exists()
    assert check_folder(made.folder) == ()


def test_a_stedgeai_that_does_not_answer_is_stopped(stedgeai, monkeypatch):
    stedgeai(then="import time; time.sleep(60)")
    monkeypatch.setattr(neuralart, "LIMIT_SECONDS", 0.5)
    with pytest.raises(ExportError, match=r"no answer after 0\.5 seconds"):
        neuralart.compile_model(b"model")


def test_older_firmware_of_the_n6_is_not_compiled_for(tmp_path, model, stedgeai):
    stedgeai()
    board = get_board("openmv-n6", firmware="4.8.1")
    made = export(tmp_path / "out", model, board=board)
    assert made.report.npu.problem == npu.STEDGEAI_OLDER
    assert not (made.folder / "neuralart.json").exists()
    assert check_folder(made.folder) == ()


def test_the_settings_are_those_of_the_n6():
    files = neuralart.settings_files()
    pools = json.loads(files["stm32n6.mpool"])["memory"]["mempools"]
    starts = [int(pool["offset"]["value"], 16) for pool in pools]
    assert starts[:4] == [0x34200000, 0x34270000, 0x342E0000, 0x34350000]
    profile = json.loads(files["neuralart.json"])["Profiles"]["default"]
    assert profile["memory_pool"] == "stm32n6.mpool"


def test_a_camera_without_an_npu_gets_no_compiler(compiled):
    network = flatbuffer.read(read(compiled))
    for board in (omv.Budget(), get_board("openmv-h7")):
        assert npu.compile_for(board, read(compiled), network) == (None, None)
