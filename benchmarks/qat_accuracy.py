"""What quantization-aware training brings: accuracy on the camera, ours and tfmot's.

Part of qat.py, which says what is compared.
"""

import dataclasses
import pathlib
import tempfile
import time
from typing import Any

import keras
import numpy as np
from common import batches, orders, scaled
from rival import Rival, device_classes

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.images import ImageData, load_digits, load_image_folder

SAME_SCORES = 1e-4
"""How far the float scores of Keras 2 and 3 may be apart."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A network, how it is trained, and how training goes on with rounding.

    Attributes:
        data: `"digits"` for scikit-learn's, or `"folder"` for the one given.
        alpha: Of the MobileNetV2.
        resolution: Its image's side.
        float_epochs: Of the training that all share.
        epochs: Of what each goes on with.
        learning_rate: Of Adam in the first, a cosine from there to 0.
        tuning_rate: The same, of the second.
        batch_size: Images of a step.
        calibration_images: That post-training quantization takes ranges from.
        spread: How unlike the channels of linear bottlenecks are before training goes
            on, see `spread_channels`; 0 leaves them as they were trained.
    """

    data: str
    alpha: float = 0.35
    resolution: int
    float_epochs: int
    epochs: int
    learning_rate: float = 3e-3
    tuning_rate: float = 1e-3
    batch_size: int = 64
    calibration_images: int = 512
    spread: float = 0.0


SETTINGS = {
    "hard": Setting(data="folder", resolution=32, float_epochs=8, epochs=4, spread=2.0),
    "easy": Setting(data="digits", resolution=48, float_epochs=10, epochs=4),
}
TINY = Setting(
    data="digits", alpha=0.05, resolution=32, float_epochs=1, epochs=2, spread=1.0
)
"""To see that all works."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A setting with its images, scaled, and a seed."""

    setting: Setting
    data: ImageData
    seed: int

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to train on."""
        return scaled(self.data.train_images), self.data.train_labels

    @property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to measure on."""
        return scaled(self.data.test_images), self.data.test_labels

    def order(self, epochs: int, stage: int) -> np.ndarray:
        """The order of the images in a stage of the training."""
        return orders(len(self.data.train_labels), epochs, 1000 * stage + self.seed)


def load(setting: Setting, folder: pathlib.Path | None) -> ImageData:
    """The images of a setting."""
    if setting.data == "digits":
        return load_digits(resolution=setting.resolution)
    if folder is None:
        raise ValueError("Expected a folder of images for the hard setting.")
    return load_image_folder(folder, resolution=setting.resolution)


def measure(task: Task) -> dict[str, Any]:
    """All accuracies of one seed; all but the first two after the same epochs."""
    keras.backend.clear_session()
    begin = time.perf_counter()
    model, levers = make_model(task)
    train(model, task, stage=0)
    if task.setting.spread:
        spread_channels(model, levers, task.setting.spread, task.seed)
    plain = export(model, task)
    longer = keras.models.clone_model(model)
    ours = keras.models.clone_model(model)
    for copy in (longer, ours):
        copy.set_weights(model.get_weights())
    train(longer, task, stage=1)
    tuned = export(longer, task)
    train(ours, task, stage=1, callbacks=[_rounding()])
    trained = export(ours, task, calibrate=False)
    row = {
        "float": plain.accuracy.float32,
        "float_tuned": tuned.accuracy.float32,
        "ptq": plain.accuracy.int8,
        "ptq_tuned": tuned.accuracy.int8,
        "ours": trained.accuracy.int8,
        "ours_graph": trained.accuracy.fake_quantized,
        "ours_bytes": trained.cost.flash_bytes,
        **measure_tfmot(model, task),
    }
    return {**row, "seconds": round(time.perf_counter() - begin)}


def _rounding() -> Any:
    return omv.QuantizationAwareTraining(input_range=(-1, 1))


def make_model(task: Task) -> tuple[Any, Levers]:
    """A MobileNetV2 that takes values from -1 to 1, with seeded weights."""
    keras.utils.set_random_seed(task.seed)
    side, channels = task.setting.resolution, task.data.train_images.shape[-1]
    classes = len(task.data.class_names)
    levers = Levers(
        alpha=task.setting.alpha, resolution=side, channels=channels, classes=classes
    )
    model = omv.MobileNetV2(
        (side, side, channels),
        classes,
        alpha=levers.alpha,
        dropout=0,
        include_rescaling=False,
    )
    return model, levers


def train(
    model: Any, task: Task, *, stage: int, callbacks: list[Any] | None = None
) -> None:
    """Trains: stage 0 is the one that all share, stage 1 what each goes on with."""
    setting = task.setting
    epochs = (setting.float_epochs, setting.epochs)[stage]
    rate = (setting.learning_rate, setting.tuning_rate)[stage]
    order = task.order(epochs, stage)
    dataset, steps = batches(*task.train, order, setting.batch_size)
    cosine = keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
    model.compile(
        keras.optimizers.Adam(cosine),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(
        dataset,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        callbacks=callbacks,
        verbose=0,
    )


def spread_channels(model: Any, levers: Levers, spread: float, seed: int) -> None:
    """Makes the channels of linear bottlenecks unlike, and the scores the same.

    Each channel is multiplied by a power of two, normally distributed exponents, and
    what reads it divides by that. Networks trained for long have such channels, and
    activations are quantized per tensor.

    Args:
        model: From `make_model`.
        levers: Its levers.
        spread: The standard deviation of the exponents.
        seed: Decides them.

    Reference:
        Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and
        Bias Correction", arXiv:1906.04721, section 3 and 4.1; there it is undone.
    """
    random = np.random.default_rng(seed)
    scales = np.ones(levers.stem, "float32")
    for index, block in enumerate(levers.blocks):
        if block.expanded != block.inputs:
            _divide(model.get_layer(f"block_{index}_expand"), scales)
        if not block.is_residual:  # A sum has the scales of both its inputs.
            exponents = np.round(random.normal(0, spread, block.outputs))
            scales = np.exp2(exponents).astype("float32")
        norm = model.get_layer(f"block_{index}_project_bn")
        norm.gamma.assign(norm.gamma * scales)
        norm.beta.assign(norm.beta * scales)
    _divide(model.get_layer("head"), scales)


def _divide(layer: Any, scales: np.ndarray) -> None:
    layer.kernel.assign(layer.kernel / scales[:, None])


def export(model: Any, task: Task, *, calibrate: bool = True) -> omv.ExportReport:
    """The report of the camera folder, with the accuracy by TFLM."""
    images, _ = task.train
    with tempfile.TemporaryDirectory() as folder:
        return omv.export(
            model,
            pathlib.Path(folder, "camera"),
            board=omv.Budget(),
            class_names=task.data.class_names,
            representative_data=images[: task.setting.calibration_images]
            if calibrate
            else None,
            evaluation_data=task.test,
            input_range=(-1, 1),
        )


def measure_tfmot(model: Any, task: Task) -> dict[str, Any]:
    """What tfmot makes of the same weights, with the same batches, in Keras 2."""
    setting, (images, labels) = task.setting, task.test
    order = task.order(setting.epochs, stage=1)
    with Rival() as rival:
        rival.load(model)
        expected = model.predict(images, verbose=0, batch_size=256)
        apart = float(np.max(np.abs(rival.scores("float", images) - expected)))
        if apart > SAME_SCORES:
            raise RuntimeError(f"Keras 2 and 3 differ by {apart} in their scores.")
        rival.ask("quantize")
        steps = setting.epochs * (order.shape[1] // setting.batch_size)
        rate = setting.tuning_rate
        rival.ask("compile", model="tfmot", learning_rate=rate, steps=steps)
        rival.ask(
            "fit",
            model="tfmot",
            images=rival.share("images", task.train[0]),
            labels=rival.share("labels", task.train[1]),
            order=rival.share("order", order),
            batch_size=setting.batch_size,
        )
        graph = rival.scores("tfmot", images).argmax(axis=1)
        path = rival.path("model.tflite")
        grid = rival.ask("convert", path=path)
        file = pathlib.Path(path).read_bytes()
    return {
        "tfmot": float(np.mean(device_classes(file, images, **grid) == labels)),
        "tfmot_graph": float(np.mean(graph == labels)),
        "tfmot_bytes": len(file),
        "float_scores_apart": apart,
    }
