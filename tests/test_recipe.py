"""How the default recipe trains."""

import keras
import numpy as np
import pytest

from keras_omv.recipe import Recipe, WarmUpCosine, compile_model


def make_model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.mark.parametrize(("warmup_steps", "decay_steps"), [(0, 1), (0, 40), (12, 30)])
def test_the_learning_rate_is_that_of_keras_cosine_decay(warmup_steps, decay_steps):
    ours = WarmUpCosine(0.004, warmup_steps=warmup_steps, decay_steps=decay_steps)
    keras_own = keras.optimizers.schedules.CosineDecay(
        0.0004 if warmup_steps else 0.004,
        decay_steps,
        alpha=0.01,
        warmup_target=0.004 if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    steps = range(warmup_steps + decay_steps + 5)
    expected = [float(keras_own(step)) for step in steps]
    assert [float(ours(step)) for step in steps] == pytest.approx(expected, rel=1e-5)


def test_a_training_goes_on_from_its_file_with_its_learning_rate(tmp_path):
    model = make_model()
    compile_model(model, Recipe(epochs=3), steps=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    rate = loaded.optimizer.get_config()["learning_rate"]
    assert rate["registered_name"] == "keras_omv>WarmUpCosine"
    assert rate["config"] == {
        "learning_rate": 0.003,
        "warmup_steps": 6,
        "decay_steps": 6,
    }


def test_a_step_is_traced_once(monkeypatch):
    model, traced = make_model(), []
    train_step = model.train_step
    monkeypatch.setattr(
        model, "train_step", lambda d: traced.append(1) or train_step(d)
    )
    compile_model(model, Recipe(), steps=4)
    assert model.get_metrics_result()["accuracy"] == 0
    images, labels = np.ones((16, 8), "float32"), np.arange(16) % 3
    model.fit(images, labels, batch_size=4, epochs=2, verbose=0)
    assert len(traced) == 1
