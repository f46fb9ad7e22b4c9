"""main.py for the camera: one script for each generation of OpenMV firmware.

What a release offers is in `_FAMILIES`, each with the firmware file that says so. The
scripts are rendered from the Jinja templates in keras_omv/templates: main.py.jinja is
the script, and includes how this generation takes a picture and runs a model.
This module imports no TensorFlow.
"""

import dataclasses
import functools
from typing import Any, Literal

import jinja2

from keras_omv.board_data import full_release
from keras_omv.script_options import ScriptOptions


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Releases that run the same script.

    Attributes:
        tags: The releases as the firmware's repository tags them, oldest first.
        camera: The module that takes pictures.
        network: The module that runs models.
        needs: What to look up in both, to tell other releases; `""` where importing
            them is enough.
        has_romfs: Whether there may be models in /rom.
        has_load_to_fb: Whether weights can be kept in the frame buffers' memory.
        outputs_are: How int8 outputs become scores: `"scores"` by the model's own
            scale, `"bytes"` the same with negative values misread, `"255ths"` by a
            fixed scale that is not the model's.
        model_ram: How to ask for a model's arena; `""` where it cannot be asked.
        source: File and lines of the firmware, at the first of the releases.
    """

    tags: str
    camera: Literal["csi", "sensor"]
    network: Literal["ml", "tf"]
    needs: str = ""
    has_romfs: bool = False
    has_load_to_fb: bool = True
    outputs_are: Literal["scores", "bytes", "255ths"] = "scores"
    model_ram: str = ""
    source: str

    @property
    def releases(self) -> tuple[str, ...]:
        return tuple(self.tags.split())


_FAMILIES = (
    _Family(
        tags="4.0.0 4.0.1 4.0.2 4.1.0 4.1.1 4.1.2 4.1.3 4.1.4",
        camera="sensor",
        network="tf",
        needs="tf.load",
        outputs_are="255ths",
        source="src/omv/modules/py_tf.c:380, 556-565",
    ),
    _Family(
        tags="4.2.0 4.2.1 4.2.2",
        camera="sensor",
        network="tf",
        needs="tf.load",
        outputs_are="bytes",
        model_ram="model.ram()",
        source="src/omv/modules/py_tf.c:371, 744-761",
    ),
    _Family(
        tags="4.2.3 4.3.0 4.3.1 4.3.3 4.4.0 4.4.1 4.4.2 4.4.3 "
        "4.5.0 4.5.1 4.5.2 4.5.3 4.5.4 4.5.5",
        camera="sensor",
        network="tf",
        needs="tf.load",
        model_ram="model.ram()",
        source="src/omv/modules/py_tf.c:396",
    ),
    _Family(
        tags="4.5.6 4.5.7 4.5.8 4.5.9 4.6.0 4.6.20",
        camera="sensor",
        network="ml",
        model_ram="model.ram",
        source="scripts/libraries/ml/ml/model.py, src/omv/modules/py_ml.c:277-343",
    ),
    _Family(
        tags="4.7.0 4.8.0 4.8.1",
        camera="sensor",
        network="ml",
        has_romfs=True,
        model_ram="model.ram",
        source="modules/py_ml.c:326-393, modules/py_csi.c",
    ),
    _Family(
        tags="5.0.0",
        camera="csi",
        network="ml",
        needs="csi.CSI, ml.Model",
        has_romfs=True,
        has_load_to_fb=False,
        model_ram="model.ram",
        source="modules/py_csi_ng.c, scripts/libraries/ml/ml-core/ml/model.py",
    ),
)


def script_releases() -> tuple[str, ...]:
    """Return the firmware releases that have a script, oldest first."""
    return tuple(release for family in _FAMILIES for release in family.releases)


def camera_script(
    *, firmware: str = "5.0", options: ScriptOptions | None = None
) -> str:
    """Return the MicroPython script that the camera runs, main.py.

    It loads model.tflite, reads labels.txt, and prints the best labels of each
    picture with their scores and the frame rate.

    Example:
        >>> options = ScriptOptions(smooth=5, threshold=0.6)
        >>> text = camera_script(firmware="4.8.1", options=options)
        >>> "SMOOTH = 5" in text and "THRESHOLD = 0.6" in text
        True

    Args:
        firmware: The camera's firmware, such as `"5.0"`, `"4.8.1"` or `"v4.5.5"`.
        options: What else it does. Defaults to `None`: nothing.

    Raises:
        ValueError: If there is no script for that firmware.
    """
    options = options or ScriptOptions()
    return render_script(
        "main.py.jinja",
        firmware=firmware,
        saves=options.saves,
        save_condition=_save_condition(options),
        **dataclasses.asdict(options),
    )


def render_script(template: str, *, firmware: str, **settings: Any) -> str:
    """Return a MicroPython script from a template of ours.

    Args:
        template: Its file name in keras_omv/templates.
        firmware: The camera's firmware, see `camera_script`.
        **settings: What the template asks for beside the firmware's API.

    Raises:
        ValueError: If there is no script for that firmware.
    """
    family = _family(firmware)
    api = {**dataclasses.asdict(family), "releases": _span(family.releases)}
    return _templates().get_template(template).render({**api, **settings})


def _family(firmware: str) -> _Family:
    release = full_release(firmware)
    for family in _FAMILIES:
        if release in family.releases:
            return family
    raise ValueError(
        f"No camera script for this firmware. Expected one of: "
        f"{', '.join(script_releases())}. Received: {firmware!r}. Next step: take the "
        f"release nearest to the camera's, or update the camera with OpenMV IDE."
    )


def _span(releases: tuple[str, ...]) -> str:
    return releases[0] if len(releases) == 1 else f"{releases[0]} to {releases[-1]}"


def _save_condition(options: ScriptOptions) -> str:
    """Return when the script saves a picture, as MicroPython."""
    is_low, is_pressed = "confidence < SAVE_BELOW", "button.value() == 0"  # pulled up
    if options.save_below is None:
        return f"{is_pressed} and is_pause_over()"
    if options.save_button is None:
        return f"{is_low} and is_pause_over()"
    return f"({is_low} or {is_pressed}) and is_pause_over()"


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("keras_omv"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
