"""Progress bars: seen on a terminal, gone afterwards, and nowhere else."""

import json
import shutil
import sys

import exports
import notebook
import pytest

from keras_omv.cli import main

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals", allow_module_level=True)

from terminal_screen import python, run_in_pipes, run_on_terminal

AT_ONCE = "from keras_omv import progress; progress.DELAY_SECONDS = 0.0\n"
WORK = """
import sys, time
from keras_omv.progress import working
print("before")
with working("Outer work") as outer:
    for step in outer.over(range(3)):
        with working("Inner work") as inner:
            inner(1, 2)
            time.sleep(0.2)
        print(f"step {step}")
print("after")
"""
PRINTED = ["before", "step 0", "step 1", "step 2", "after"]
LATER = "from keras_omv import progress; progress.DELAY_SECONDS = 0.2\n"
CAPTURE = """
import contextlib, io, sys, time
kept, work, capture = io.StringIO(), contextlib.ExitStack(), contextlib.ExitStack()

def open_work():
    work.enter_context(progress.working("Work"))

def open_capture():
    for stream in sys.argv[1:]:
        capture.enter_context(getattr(contextlib, f"redirect_{{stream}}")(kept))

def say(text):
    print(text, "of stdout")
    print(text, "of stderr", file=sys.stderr)

{}
say("during")
time.sleep(0.6)
say("still")
{}
say("after")
say("at last")
print(kept.getvalue().splitlines())
"""
OPENED = ("open_work(); open_capture()", "open_capture(); open_work()")
BOTH = ("stdout", "stderr")
CLOSED = ("work.close(); capture.close()", "capture.close(); work.close()")
TEE = """
import sys

class Tee:
    def __init__(self, file):
        self.file = file

    def write(self, text):
        self.file.write(text)

    def flush(self):
        self.file.flush()

if "stdout" in sys.argv: sys.stdout = Tee(sys.stdout)
if "stderr" in sys.argv: sys.stderr = Tee(sys.stderr)
if "none" in sys.argv: sys.stderr = None
"""
COMMAND = "import sys; from keras_omv.cli import main; main(sys.argv[1:])"
FIT = """
import sys
from rich.console import Console
sys.path.insert(0, sys.argv[1])
import exports
import keras_omv as omv
from keras_omv.fit_progress import FitProgress

images, labels = exports.make_images()
model = exports.make_model(knows=False)
model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
export = omv.OpenMVExport(
    sys.argv[2], board=exports.BOARD, class_names=exports.NAMES,
    representative_data=images, evaluation_data=(images, labels),
)
if sys.argv[3] == "keras":
    model.fit(images, labels, epochs=2, callbacks=[export])
else:
    with FitProgress(Console(), start_epoch=9) as bar:
        model.fit(images, labels, epochs=2, verbose=0, callbacks=[bar, export])
print("exported", export.report.accuracy.images)
"""
SEARCH = """
import time
from rich.console import Console
from keras_omv.search_progress import SearchProgress

search = SearchProgress(Console(), trials=2, hours=1.5)
search.start()
for name in ("alpha 0.1 at 32 px", "alpha 0.2 at 48 px"):
    search.begin_trial(name)
    search.set_params({"epochs": 2})
    search.on_epoch_end(0)
    with progress.silent(), progress.working("Reading images"):
        time.sleep(0.3)
    search.end_trial(None)
search.stop()
"""
STEPS = ("Taking activation ranges", "images in", "Comparing with the Keras model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exports.make_export(tmp_path_factory.mktemp("export") / "camera").folder


def test_bars_appear_on_a_terminal_and_leave_nothing_behind():
    ran = run_on_terminal(python(AT_ONCE + WORK))
    assert "Outer work" in ran.shown
    assert "Inner work" in ran.shown
    assert ran.screen == PRINTED
    assert ran.shown.rindex("\x1b[?25h") > ran.shown.rindex("\x1b[?25l")


def test_what_is_piped_away_stays_whole_while_bars_are_on_the_terminal():
    ran = run_on_terminal(python(AT_ONCE + WORK), pipes_stdout=True)
    assert "Outer work" in ran.shown
    assert ran.screen == []
    assert ran.out.splitlines() == PRINTED


@pytest.mark.parametrize(
    "settings", [{"CI": "true"}, {"TERM": "dumb"}, {"TTY_INTERACTIVE": "0"}]
)
def test_no_bars_where_the_environment_says_that_nobody_looks(settings):
    ran = run_on_terminal(python(AT_ONCE + WORK), **settings)
    assert ran.shown.splitlines() == PRINTED


@pytest.mark.parametrize("settings", [{}, {"FORCE_COLOR": "1"}])
def test_no_bars_in_a_log(settings):
    ran = run_in_pipes(python(AT_ONCE + WORK), **settings)
    assert ran.shown == ""
    assert ran.out.splitlines() == PRINTED


def test_bars_appear_below_a_notebooks_cell_and_leave_nothing_behind():
    ran = notebook.run(AT_ONCE + WORK)
    assert "Outer work" in ran.drawn
    assert "Inner work" in ran.drawn
    assert "\x1b" not in ran.drawn
    assert ran.printed.splitlines() == PRINTED
    assert ran.left == [""]


def test_all_bars_of_a_notebooks_cell_have_one_place():
    ran = notebook.run(AT_ONCE + 2 * WORK + "display(3)")
    assert ran.drawn.count("Inner work") >= 2
    assert ran.printed.splitlines() == 2 * PRINTED
    assert ran.left == ["", "3"]


def test_no_bar_in_a_notebook_where_stderr_is_captured():
    captured = "import contextlib, io\nwith contextlib.redirect_stderr(io.StringIO()):"
    ran = notebook.run(f"{AT_ONCE}{captured}\n    exec({WORK!r})")
    assert ran.printed.splitlines() == PRINTED
    assert ran.left == []


def test_a_notebook_shows_no_bar_of_what_is_short_or_not_wanted_or_in_ci():
    assert notebook.run(AT_ONCE + WORK, CI="true").left == []
    unwanted = "progress.show_progress(False)\n" + WORK.replace("before", "short")
    assert notebook.run(AT_ONCE + unwanted).left == []
    short = WORK.replace("0.2", "0.01").replace("before", "short")
    ran = notebook.run(short)
    assert ran.printed.splitlines() == ["short", *PRINTED[1:]]
    assert ran.left == []


@pytest.mark.parametrize(
    "wish",
    ["import keras_omv.progress as p; p.show_progress(False)\n", "with p.silent(): "],
)
def test_no_bars_where_none_are_wanted(wish):
    code = "from keras_omv import progress as p\n" + AT_ONCE + wish
    ran = run_on_terminal(python(f"{code}exec({WORK!r})"))
    assert ran.shown.splitlines() == PRINTED


def test_short_work_shows_nothing():
    code = "from keras_omv.progress import working\nwith working('Work'): pass"
    assert run_on_terminal(python(code)).shown == ""


def test_bars_are_gone_before_an_error_is_shown():
    code = (
        "import time\nwith progress.working('Work'):\n"
        "    time.sleep(0.2)\n    raise ValueError('of the work')"
    )
    ran = run_on_terminal(python(AT_ONCE + code))
    assert "Work" in ran.shown
    assert ran.screen[0].startswith("Traceback")
    assert ran.screen[-1] == "ValueError: of the work"


@pytest.mark.parametrize("streams", [["stdout"], ["stderr"], ["stdout", "stderr"]])
@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("closed", CLOSED)
def test_nothing_is_lost_where_prints_are_captured_as_bars_appear(
    opened, closed, streams
):
    ran = run_on_terminal(python(LATER + CAPTURE.format(opened, closed), *streams))
    said = [f"{when} of {name}" for when in ("during", "still") for name in BOTH]
    captured = [line for line in said if line.endswith(tuple(streams))]
    seen = [line for line in said if line not in captured]
    after = [f"{when} of {name}" for when in ("after", "at last") for name in BOTH]
    assert ran.screen == [*seen, *after, str(captured)]


def test_a_line_begun_below_a_bar_is_not_lost():
    code = (
        "import time\nwith progress.working('Work'):\n    time.sleep(0.2)\n"
        "    print('begun', end='')\n"
    )
    ran = run_on_terminal(python(AT_ONCE + code))
    assert "Work" in ran.shown
    assert ran.screen == ["begun"]


def test_streams_have_their_own_attributes_while_a_bar_is_shown():
    code = (
        "import sys, time\nbefore = sys.stdout\nwith progress.working('Work'):\n"
        "    time.sleep(0.2)\n    inside = sys.stdout\n"
        "    assert (inside.encoding, inside.isatty()) == (before.encoding, True)\n"
        "assert sys.stdout is before\n"
    )
    ran = run_on_terminal(python(AT_ONCE + code))
    assert "Work" in ran.shown
    assert (ran.code, ran.screen) == (0, [])


@pytest.mark.parametrize("streams", [["stderr"], ["stdout", "stderr"], ["none"]])
def test_no_bars_where_stderr_only_writes_or_is_not_there(streams):
    ran = run_on_terminal(python(TEE + AT_ONCE + WORK, *streams))
    assert ran.code == 0
    assert ran.shown.splitlines() == PRINTED


def test_bars_stand_beside_a_stdout_that_only_writes():
    ran = run_on_terminal(python(TEE + AT_ONCE + WORK, "stdout"))
    assert ran.code == 0
    assert "Inner work" in ran.shown
    assert all(line in ran.shown for line in PRINTED)


@pytest.mark.parametrize("streams", [["stderr"], ["none"]])
def test_tensorflow_is_quiet_beside_a_stream_that_only_writes(streams):
    code = (
        "import os\nfrom keras_omv.terminal import quiet_tensorflow\n"
        "with quiet_tensorflow(): os.write(2, b'chatter')\n"
        "os.write(2, b'after')\n"
    )
    ran = run_on_terminal(python(TEE + AT_ONCE + code, *streams))
    assert ran.code == 0
    assert ran.screen == ["after"]


def test_silence_of_two_threads_ends_with_the_last():
    code = (
        "import time\nfirst, second = progress.silent(), progress.silent()\n"
        "first.__enter__(); second.__enter__()\n"
        "first.__exit__(None, None, None)\n"
        "with progress.working('Hidden'): time.sleep(0.2)\n"
        "second.__exit__(None, None, None)\n"
        "with progress.working('Work'): time.sleep(0.2)\n"
    )
    ran = run_on_terminal(python(AT_ONCE + code))
    assert "Hidden" not in ran.shown
    assert "Work" in ran.shown


def test_lines_of_a_command_go_above_its_bars():
    code = (
        "import time\nfrom rich.console import Console\n"
        "with progress.working('Work'):\n    time.sleep(0.2)\n"
        "    progress.print_line('[0] line', Console())\n    time.sleep(0.2)\n"
    )
    ran = run_on_terminal(python(AT_ONCE + code))
    assert ran.screen == ["[0] line"]
    assert ran.shown.rindex("Work") > ran.shown.index("[0] line")


def test_an_export_leaves_the_lines_of_keras_as_they_are(tmp_path):
    ran = run_on_terminal(
        python(AT_ONCE + FIT, exports.__file__.rpartition("/")[0], tmp_path, "keras")
    )
    assert ran.code == 0
    assert all(step in ran.shown for step in STEPS)
    last = ran.screen[ran.screen.index("Epoch 1/2") :]
    starts = [line.split()[0] for line in last]
    assert starts == ["Epoch", "3/3", "Epoch", "3/3", "exported"]
    assert not any(step in line for step in STEPS for line in last)


def test_an_export_stands_below_the_fit_of_a_command(tmp_path):
    ran = run_on_terminal(
        python(AT_ONCE + FIT, exports.__file__.rpartition("/")[0], tmp_path, "ours")
    )
    assert ran.code == 0
    assert "Epoch 2/2: loss" in ran.shown
    assert all(step in ran.shown for step in STEPS)
    assert ran.screen[-1] == "exported 90"
    assert not any("Epoch" in line for line in ran.screen)


def test_trials_are_lines_above_the_bar_of_a_search():
    ran = run_on_terminal(python(AT_ONCE + SEARCH))
    assert "Trial 2, alpha 0.2 at 48 px; no result yet; 90 min left" in ran.shown
    assert "Reading images" in ran.shown
    assert ran.screen[-2:] == ["Trial 1 of 2: failed", "Trial 2 of 2: failed"]


def test_json_stays_pure_beside_a_bar(folder):
    model = folder / "model.tflite"
    arguments = "verify", model, "--board", exports.BOARD, "--json"
    ran = run_on_terminal(python(AT_ONCE + COMMAND, *arguments), pipes_stdout=True)
    assert "Running test frames" in ran.shown
    assert ran.screen == []
    assert json.loads(ran.out)["path"] == str(model)


def test_quiet_verify_says_what_it_found_by_its_exit_code_alone(folder, tmp_path):
    ran = run_on_terminal(python(AT_ONCE + COMMAND, "verify", folder, "--quiet"))
    assert (ran.code, ran.shown) == (0, "")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "labels.txt").write_text("others\n")
    ran = run_on_terminal(python(AT_ONCE + COMMAND, "verify", broken, "--quiet"))
    assert (ran.code, ran.shown) == (1, "")


def test_reading_a_model_shows_a_bar_and_not_what_tensorflow_says(tmp_path):
    path = tmp_path / "small.keras"
    exports.make_model(knows=False).save(path)
    ran = run_on_terminal(python(AT_ONCE + COMMAND, "cost", path))
    assert ran.code == 0
    assert f"Reading {path}" in ran.shown
    assert "flash" in ran.screen[0] + ran.screen[1] + ran.screen[2]
    assert "WARNING" not in ran.shown
    assert "\x1b[?25h" in ran.shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["space", "--board", "openmv-m7", "--classes", "2"],
        ["cost", "--alpha", "0.1", "--resolution", "32", "--classes", "2"],
    ],
)
def test_quiet_commands_print_nothing(capsys, arguments):
    main([*arguments, "--quiet"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["deploy", "selftest", "cost", "verify"])
def test_quiet_commands_still_print_errors(capsys, tmp_path, command):
    with pytest.raises(SystemExit, match="1"):
        main([command, str(tmp_path / "nothing.keras"), "--quiet"])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("keras-omv: ")
