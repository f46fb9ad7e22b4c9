"""How the default recipe trains."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_omv.recipe import LearningRate, Recipe, compile_model, training_batches


def make_model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def make_data():
    return np.ones((16, 8), "float32"), np.arange(16) % 3


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 9), (2, 20), (7, 6)])
def test_the_learning_rate_is_that_of_keras_cosine_decay(epochs, steps):
    ours = LearningRate(Recipe(epochs=epochs, learning_rate=0.004), steps)
    warmup_steps = min(2 * steps, epochs * steps // 2)
    keras_own = keras.optimizers.schedules.CosineDecay(
        0.0004 if warmup_steps else 0.004,
        epochs * steps - warmup_steps,
        alpha=0.01,
        warmup_target=0.004 if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    numbers = range(epochs * steps + 5)
    expected = [float(keras_own(number)) for number in numbers]
    assert [ours.at(number) for number in numbers] == pytest.approx(expected, rel=1e-5)


def test_every_step_has_its_learning_rate_also_where_a_training_goes_on():
    model, recipe = make_model(), Recipe(epochs=4)
    compile_model(model, recipe)
    rates = LearningRate(recipe, 4)
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            float(model.optimizer.learning_rate)
        )
    )
    for initial_epoch, epochs in ((0, 1), (1, 4)):
        model.fit(
            *make_data(),
            batch_size=4,
            initial_epoch=initial_epoch,
            epochs=epochs,
            callbacks=[rates, note],
            verbose=0,
        )
    assert seen == pytest.approx([rates.at(step) for step in range(16)])


def test_a_training_is_read_from_its_file_by_keras_alone(tmp_path):
    model, recipe = make_model(), Recipe(epochs=3)
    compile_model(model, recipe)
    rate = LearningRate(recipe, 4)
    model.fit(*make_data(), batch_size=4, epochs=1, callbacks=[rate], verbose=0)
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, sys\n"
        "optimizer = keras.models.load_model(sys.argv[1]).optimizer\n"
        "print(type(optimizer).__name__, int(optimizer.iterations))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.keras"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "AdamW 4", done.stderr[-2000:]


def test_a_step_is_traced_once(monkeypatch):
    model, traced = make_model(), []
    train_step = model.train_step
    monkeypatch.setattr(
        model, "train_step", lambda d: traced.append(1) or train_step(d)
    )
    compile_model(model, Recipe())
    assert model.get_metrics_result()["accuracy"] == 0
    rates = LearningRate(Recipe(epochs=2), 4)
    model.fit(*make_data(), batch_size=4, epochs=2, callbacks=[rates], verbose=0)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("images", "batch_size"),
    [(1, 8), (240, 8), (319, 8), (320, 16), (1279, 32), (1280, 64), (50_000, 64)],
)
def test_few_images_come_in_small_batches(images, batch_size):
    assert Recipe().batch_size_for(images) == batch_size
    assert Recipe(batch_size=100).batch_size_for(images) == 100
    data = tf.data.Dataset.from_tensor_slices(
        (np.zeros((images, 4, 4, 1), "uint8"), np.zeros(images, "int64"))
    )
    batches = training_batches(data, Recipe())
    assert int(batches.cardinality()) == -(-images // batch_size)
