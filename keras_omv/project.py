"""The folder of a search, kept so that a search survives its process.

KerasTuner writes its files one after the other and in place: a process that dies in
between leaves them torn or at odds, and a trial is lost or done twice. Here the whole
state of the oracle goes into one file, which is replaced as a whole after every
change; when a search is opened again, KerasTuner's own files are put right from it
before KerasTuner reads them.
"""

import json
import logging
import os
import pathlib
import shutil
import sys
from typing import Any

from keras_omv.errors import SearchError
from keras_omv.results import RESULT_FILE, read_result, write_atomically

try:
    import fcntl
except ImportError:  # Windows has none: there nothing is locked.
    fcntl = None  # type: ignore[assignment]

_LOGGER = logging.getLogger(__name__)
_LOCKED: dict[pathlib.Path, int] = {}
"""The open lock files of this process: the system unlocks them when it ends."""
SETTINGS_FILE = "keras_omv.json"
STATE_FILE = "state.json"
LOCK_FILE = "search.lock"
_START_ANEW = (
    "Next step: choose another project_name, or pass overwrite=True to forget the "
    "earlier trials."
)
RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"


class Project:
    """The folder of one search.

    Args:
        folder: KerasTuner's `directory / project_name`.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.failure = ""
        self._running: dict[str, str] = {}

    def remove(self) -> None:
        """Forgets an earlier search; leaves a folder that holds none."""
        if (self.folder / SETTINGS_FILE).exists():
            shutil.rmtree(self.folder)

    def open(
        self,
        settings: dict[str, Any],
        *,
        tuner_id: str,
        restores: bool = True,
        has_workers: bool = False,
    ) -> None:
        """Puts the files of an earlier process right, and notes the settings.

        Args:
            settings: What decides what the trials mean; JSON data.
            tuner_id: KerasTuner's name of this process.
            restores: Whether the oracle can go on from its saved state. One that
                cannot begins anew, and finds the results of what it proposes again.
            has_workers: Whether other processes run the trials: those that ran are
                theirs still, see `hand_back`.

        Raises:
            SearchError: If the folder holds a search with other settings, or one
                that cannot be read.
        """
        self._check_settings(settings)
        state = self._read_state()
        self._check_trials(state)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        # KerasTuner takes up a search only where it finds this file.
        marker = self.folder / f"{tuner_id}.json"
        marker.unlink(missing_ok=True)
        if restores:
            self._remove_unknown_trials(state)
        if restores and state is not None:
            self._restore(state)
            if has_workers:
                self._running = state["oracle"].pop("ongoing_trials")
                self._put_right(
                    "oracle.json", {**state["oracle"], "ongoing_trials": {}}
                )
            write_atomically(marker, "{}")
        write_atomically(self.folder / SETTINGS_FILE, json.dumps(settings, indent=1))

    def keep(self, oracle: Any) -> None:
        """Lets an oracle save its whole state at once, from now on.

        It also ends a search whose trials fail one after the other: KerasTuner's own
        way, an exception, leaves a chief locked for ever.

        Args:
            oracle: The `keras_tuner.Oracle` of this process; not a worker's client.
        """
        save, end_trial = oracle.save, oracle.end_trial
        most_failures = oracle.max_consecutive_failed_trials
        oracle.max_consecutive_failed_trials = sys.maxsize

        def save_whole() -> None:
            save()
            self._write_state(oracle)

        def end_and_save(*args: Any, **kwargs: Any) -> None:
            end_trial(*args, **kwargs)
            oracle.save()  # KerasTuner saves before it takes the trial off its list.
            last = [oracle.trials[name] for name in oracle.end_order[-most_failures:]]
            if len(last) == most_failures and all(t.status == FAILED for t in last):
                self.failure = str(last[-1].message).strip().splitlines()[-1]
                _LOGGER.error("%d trials failed in a row, the search ends.", len(last))
                oracle.max_trials = len(oracle.trials)

        oracle.save, oracle.end_trial = save_whole, end_and_save

    def hand_back(self, oracle: Any) -> None:
        """Gives trials that ran when a chief died back to the workers that run them.

        Args:
            oracle: The chief's, after KerasTuner has loaded it.
        """
        for tuner_id, name in self._running.items():
            oracle.ongoing_trials[tuner_id] = oracle.trials[name]

    def _write_state(self, oracle: Any) -> None:
        trials = {name: t.get_state() for name, t in oracle.trials.items()}
        state = {"oracle": oracle.get_state(), "trials": trials}
        write_atomically(self.folder / STATE_FILE, json.dumps(state))

    def _check_settings(self, settings: dict[str, Any]) -> None:
        earlier = self._read_json(SETTINGS_FILE)
        if earlier is None:
            return
        # JSON has no tuples.
        now = json.loads(json.dumps(settings))
        changed = [
            f"{name} {now.get(name)} instead of {earlier.get(name)}"
            for name in sorted(now.keys() | earlier.keys())
            if now.get(name) != earlier.get(name)
        ]
        if changed:
            raise SearchError(
                f"Expected the settings of the search in {self.folder}. Received: "
                f"{', '.join(changed)}. {_START_ANEW}"
            )

    def _check_trials(self, state: dict[str, Any] | None) -> None:
        """Refuse trials that are not of a search of ours: they would be removed."""
        is_ours = (self.folder / SETTINGS_FILE).exists()
        folders = list(self.folder.glob("trial_*"))
        has_results = any((folder / RESULT_FILE).exists() for folder in folders)
        if state is None and folders and (has_results or not is_ours):
            raise SearchError(
                f"Expected a new folder, or a search with its {STATE_FILE}. Received: "
                f"{self.folder}, which has trials without it. {_START_ANEW}"
            )

    def _lock(self) -> None:
        """Keep other processes from the folder as long as this one lives."""
        path = (self.folder / LOCK_FILE).resolve()
        if fcntl is None or path in _LOCKED:
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise SearchError(
                f"Expected {self.folder} for this search alone. Received: another "
                "process that searches there. Next step: wait for it, or choose "
                "another project_name; for several processes see the README."
            ) from error
        _LOCKED[path] = descriptor

    def _read_state(self) -> dict[str, Any] | None:
        state = self._read_json(STATE_FILE)
        if state is not None and not {"oracle", "trials"} <= state.keys():
            raise self._unreadable(STATE_FILE, "no state of an oracle")
        return state

    def _read_json(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise self._unreadable(name, str(error)) from error
        if not isinstance(content, dict):
            raise self._unreadable(name, "no object")
        return content

    def _unreadable(self, name: str, reason: str) -> SearchError:
        return SearchError(
            f"Expected the state of a search. Received: {self.folder / name}, which "
            f"cannot be read: {reason}. {_START_ANEW}"
        )

    def _remove_unknown_trials(self, state: dict[str, Any] | None) -> None:
        """Remove folders of trials that were being made when the process died."""
        known = (
            set() if state is None else {f"trial_{name}" for name in state["trials"]}
        )
        for folder in self.folder.glob("trial_*"):
            if folder.is_dir() and folder.name not in known:
                shutil.rmtree(folder)

    def _restore(self, state: dict[str, Any]) -> None:
        oracle, trials = state["oracle"], state["trials"]
        for name, trial in trials.items():
            if trial["status"] == COMPLETED and self._has_lost_result(name):
                _repeat(name, state)
        oracle["ongoing_trials"] = {
            tuner: name
            for tuner, name in oracle["ongoing_trials"].items()
            if trials[name]["status"] == RUNNING
        }
        for name, trial in trials.items():
            self._put_right(f"trial_{name}/trial.json", trial)
        self._put_right("oracle.json", oracle)

    def _has_lost_result(self, name: str) -> bool:
        folder = self.folder / f"trial_{name}"
        if read_result(folder) is not None:
            return False
        _LOGGER.warning(
            "Trial %s is repeated: there is no %s in %s that can be read.",
            name,
            RESULT_FILE,
            folder,
        )
        return True

    def _put_right(self, name: str, content: dict[str, Any]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content))


def _repeat(name: str, state: dict[str, Any]) -> None:
    """Change a saved state so that KerasTuner runs a finished trial again."""
    oracle, trial = state["oracle"], state["trials"][name]
    trial["status"] = RUNNING
    trial["score"] = None
    trial["metrics"] = {"metrics": {}}
    oracle["end_order"] = [other for other in oracle["end_order"] if other != name]
    if name not in oracle["retry_queue"]:
        oracle["retry_queue"].append(name)
