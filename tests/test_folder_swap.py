"""A camera folder is there whole, whenever the process that writes it is killed."""

import json
import subprocess
import sys

import pytest

KILLS = 40
# One process imports the package, and forks those that are killed.
KILLER = """
import json, os, pathlib, random, signal, sys, time
from keras_omv import deploy

folder, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2])
random.seed(0)

def version(name):
    report = json.dumps({"format": "keras_omv.report/1", "version": name}).encode()
    text = name.encode() * 5_000
    return {"model.tflite": text, "labels.txt": text, "report.json": report}

def contents():
    return {path.name: path.read_bytes() for path in folder.iterdir()}

versions = [version("old"), version("new")]
start = time.monotonic()
for files in (*versions, *versions, versions[0]):
    deploy.write_folder(folder, files)
write_seconds = (time.monotonic() - start) / 5
tally = {"old": 0, "new": 0, "in the middle": 0, "broken": 0}
for _ in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            for files in (versions[1], versions[0]):
                deploy.write_folder(folder, files)
    time.sleep(random.uniform(0, 4 * write_seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tally["in the middle"] += len(list(folder.parent.iterdir())) > 1
    deploy.check_destination(folder)
    found = contents()
    names = [n for n, files in zip(("old", "new"), versions) if files == found]
    tally[names[0] if names else "broken"] += 1
deploy.write_folder(folder, versions[1])
tally["left"] = sorted(path.name for path in folder.parent.iterdir())
print(json.dumps(tally))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(tmp_path):
    command = [sys.executable, "-c", KILLER, str(tmp_path / "camera"), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tally = json.loads(done.stdout)
    assert tally["broken"] == 0
    assert tally["old"] + tally["new"] == KILLS
    assert min(tally["old"], tally["new"], tally["in the middle"]) > 0
    assert tally["left"] == ["camera"]
