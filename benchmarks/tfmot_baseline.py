"""The rival of qat.py: quantization-aware training by tfmot, in Keras 2.

Started by `rival.py` with TF_USE_LEGACY_KERAS=1, as tfmot takes no other Keras. Reads
requests, one JSON object a line, from standard input: `do` names a method of `Baseline`
and the rest are its arguments. Writes its answer as a line to standard output.
"""

import json
import os
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from common import batches, status_bytes

LOSS = "sparse_categorical_crossentropy"


class Baseline:
    """A float model, and what tfmot makes of it."""

    def load(self, layers: list[dict], weights: str) -> dict[str, Any]:
        """Builds a model from `rival.plain_layers`, with weights from an .npz file."""
        tf_keras.backend.clear_session()
        made: dict[str, Any] = {}
        for layer in layers:
            inputs = [made[name] for name in layer["inputs"]]
            make = getattr(tf_keras.layers, layer["class_name"])
            if not inputs:
                made[layer["name"]] = image = tf_keras.Input(**layer["arguments"])
                continue
            layer_inputs = inputs[0] if len(inputs) == 1 else inputs
            made[layer["name"]] = make(name=layer["name"], **layer["arguments"])(
                layer_inputs
            )
        self.models = {"float": tf_keras.Model(image, made[layers[-1]["name"]])}
        self._set_weights(weights)
        return {}

    def _set_weights(self, path: str) -> None:
        with np.load(path) as arrays:
            for layer in self.models["float"].layers:
                count = len(layer.weights)
                layer.set_weights([arrays[f"{layer.name}/{i}"] for i in range(count)])

    def predict(self, model: str, images: str, scores: str) -> dict[str, Any]:
        """Writes a model's scores of the images of an .npy file."""
        found = self.models[model].predict(np.load(images), batch_size=256, verbose=0)
        np.save(scores, found)
        return {}

    def quantize(self) -> dict[str, Any]:
        """Makes the model quantization-aware; answers the seconds."""
        begin = time.perf_counter()
        self.models["tfmot"] = tfmot.quantization.keras.quantize_model(
            self.models["float"]
        )
        return {"seconds": time.perf_counter() - begin}

    def compile(self, model: str, learning_rate: float, steps: int) -> dict[str, Any]:
        """Compiles for a training of some steps."""
        rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        self.models[model].compile(
            tf_keras.optimizers.Adam(rate), loss=LOSS, metrics=["accuracy"]
        )
        return {}

    def steps(self, model: str, images: str, labels: str, count: int) -> dict[str, Any]:
        """Trains on one batch again and again; answers the seconds of each time."""
        batch, seconds = (np.load(images), np.load(labels)), []
        for _ in range(count):
            begin = time.perf_counter()
            self.models[model].train_on_batch(*batch)
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds}

    def fit(
        self, model: str, images: str, labels: str, order: str, batch_size: int
    ) -> dict[str, Any]:
        """Trains; answers the process's memory before and at its peak."""
        before = status_bytes("VmRSS")
        arrays = (np.load(path) for path in (images, labels, order))
        dataset, steps = batches(*arrays, batch_size)
        self.models[model].fit(
            dataset,
            epochs=len(np.load(order)),
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
        )
        return {"before_bytes": before, "peak_bytes": status_bytes("VmHWM")}

    def convert(self, path: str) -> dict[str, Any]:
        """Writes the int8 file as tfmot's guide makes it; answers its input's grid."""
        converter = tf.lite.TFLiteConverter.from_keras_model(self.models["tfmot"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        content = converter.convert()
        with open(path, "wb") as file:
            file.write(content)
        details = tf.lite.Interpreter(model_content=content).get_input_details()[0]
        scale, zero_point = details["quantization"]
        return {"scale": float(scale), "zero_point": int(zero_point)}


def main() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # TensorFlow prints there too.
    baseline = Baseline()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(baseline, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
