"""Whether a connected camera is the one that a folder was made for."""

from keras_omv.boards import Board, board_names, get_board
from keras_omv.camera_link import ARCHITECTURES
from keras_omv.checked_folder import CheckedFolder
from keras_omv.errors import CameraError
from keras_omv.scripts import camera_script, script_releases


def check_camera(folder: CheckedFolder, *, arch: str, firmware: str) -> None:
    """Compare a camera with a folder.

    Args:
        folder: The folder.
        arch: What the camera's `omv.arch()` says.
        firmware: What its `omv.version_string()` says.

    Raises:
        CameraError: If the folder is for another camera, or its main.py for other
            firmware.
    """
    board = folder.board
    if isinstance(board, Board) and ARCHITECTURES.get(arch) != board.target:
        raise CameraError(
            f"Nothing was copied: {folder.path} is for {board.label}. Expected this "
            f"camera. Received: {_name_of(arch)}. Next step: export with --board for "
            f"the camera that is connected, or connect the other one."
        )
    if firmware not in script_releases():
        raise _firmware_error(folder, firmware, "no main.py is known for it", "")
    if camera_script(firmware=firmware) != camera_script(firmware=folder.firmware):
        age = "old" if _numbers(firmware) < _numbers(folder.firmware) else "new"
        step = f"export with --firmware {firmware}, or "
        raise _firmware_error(folder, firmware, f"it is too {age}", step)


def memory_note(folder: CheckedFolder, firmware: str) -> str:
    """Say where a camera runs the same script but has other memory, else `""`."""
    if not isinstance(folder.board, Board) or firmware == folder.firmware:
        return ""
    return (
        f"Whether the model fits was computed for firmware {folder.firmware}, the "
        f"camera has {firmware}: export with --firmware {firmware} to be sure."
    )


def _firmware_error(
    folder: CheckedFolder, firmware: str, problem: str, step: str
) -> CameraError:
    return CameraError(
        f"Nothing was copied: the camera has firmware {firmware}, {problem}. Expected "
        f"what main.py was made for: {folder.firmware}. Received: {firmware}. Next "
        f"step: {step}install firmware {folder.firmware} with OpenMV IDE."
    )


def _name_of(arch: str) -> str:
    target = ARCHITECTURES.get(arch, "")
    names = [name for name in board_names() if get_board(name).target == target]
    return names[0] if names else f"a board that calls itself {arch!r}"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in release.split("."))
