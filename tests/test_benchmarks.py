"""The benchmarks' tables and results are what the README shows."""

import importlib
import json
import pathlib
import sys

import numpy as np
import pytest

import keras_omv as omv

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
ACCURACIES = {"float": 0.8, "float_tuned": 0.9, "ptq": 0.5, "ptq_tuned": 0.7}


@pytest.fixture
def load(monkeypatch):
    """Imports a benchmark as its command does, with its folder first on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = {path.stem for path in FOLDER.glob("*.py")}
    before = {*sys.modules}
    yield importlib.import_module
    for name in ({*sys.modules} - before) & names:
        del sys.modules[name]


def test_results_go_on_where_they_stopped(load, tmp_path):
    common, path = load("common"), tmp_path / "results" / "x.json"
    first = common.Results(path, command="x", settings={"sides": (1, 2)})
    first.measure({"seed": 0}, lambda: {"value": 1})
    again = common.Results(path, command="x", settings={"sides": (1, 2)})
    again.measure({"seed": 0}, lambda: pytest.fail("measured twice"))
    again.measure({"seed": 1}, lambda: {"value": 2})
    content = json.loads(path.read_text())
    assert [row["value"] for row in content["rows"]] == [1, 2]
    assert content["settings"] == {"sides": [1, 2]}
    assert {"versions", "hardware", "date"} < content["rows"][0].keys()


def test_results_of_other_settings_are_refused(load, tmp_path):
    common, path = load("common"), tmp_path / "x.json"
    results = common.Results(path, command="x", settings={"epochs": 1})
    results.measure({"seed": 0}, dict)
    with pytest.raises(ValueError, match="Remove the file"):
        common.Results(path, command="x", settings={"epochs": 2})
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="Remove the file"):
        common.Results(path, command="x", settings={"epochs": 1})


def test_batches_take_each_image_once_an_epoch_in_the_given_order(load):
    common = load("common")
    images, labels = np.arange(6.0).reshape(6, 1, 1, 1), np.arange(6)
    order = common.orders(6, epochs=2, seed=0)
    dataset, steps = common.batches(images, labels, order, batch_size=2)
    pairs = [(x.numpy().ravel(), y.numpy()) for x, y in dataset]
    assert steps == 3
    assert np.array_equal(np.concatenate([y for _, y in pairs]), order.ravel())
    assert all(np.array_equal(x, y) for x, y in pairs)


def test_both_kerases_get_the_same_layers(load):
    rival = load("rival")
    model = omv.MobileNetV2(
        (32, 32, 3), 2, alpha=0.1, depth=2, dropout=0, include_rescaling=False
    )
    layers = {layer["name"]: layer for layer in rival.plain_layers(model)}
    assert [*layers] == [layer.name for layer in model.layers]
    assert layers["block_0_add"]["inputs"] == ["stem_relu", "block_0_project_bn"]
    assert layers["image"]["arguments"] == {"name": "image", "shape": (32, 32, 3)}
    assert layers["stem"]["arguments"]["strides"] == (2, 2)


def test_spreading_the_channels_changes_no_score(load):
    qat_accuracy = load("qat_accuracy")
    levers = omv.Levers(alpha=0.2, resolution=32, classes=3)
    model = omv.MobileNetV2(
        (32, 32, 3), 3, alpha=0.2, batch_norm_momentum=0.0, include_rescaling=False
    )
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(random.normal(0, 0.5, layer.beta.shape))
    images = random.uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    model(images, training=True)  # Statistics that fit the images.
    before = np.asarray(model(images))
    kernel = np.asarray(model.get_layer("block_2_expand").kernel)
    qat_accuracy.spread_channels(model, levers, spread=1.5, seed=0)
    assert np.ptp(before, axis=0).max() > 1e-3
    np.testing.assert_allclose(np.asarray(model(images)), before, atol=1e-6)
    changed = np.asarray(model.get_layer("block_2_expand").kernel) / kernel
    assert changed.max() / changed.min() >= 4


def test_device_classes_are_those_of_the_exported_network(load, tmp_path):
    rival = load("rival")
    model = omv.MobileNetV2(
        (32, 32, 3), 3, alpha=0.05, depth=1, dropout=0, include_rescaling=False
    )
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, 32, 32, 3)).astype("float32")
    images, labels = pixels / np.float32(127.5) - 1, np.arange(8) % 3
    report = omv.export(
        model,
        tmp_path / "camera",
        board=omv.Budget(),
        class_names=["a", "b", "c"],
        representative_data=images,
        evaluation_data=(images, labels),
        input_range=(-1, 1),
    )
    file = (tmp_path / "camera" / "model.tflite").read_bytes()
    low, high = report.network_input_range
    scale = (high - low) / 255
    zero_point = round(-128 - low / scale)
    found = rival.device_classes(file, images, scale=scale, zero_point=zero_point)
    assert np.mean(found == labels) == report.accuracy.int8


def test_accuracy_table_pairs_the_seeds(load):
    qat = load("qat")
    row = {"setting": "easy", **ACCURACIES, "ours_graph": 0.8, "tfmot_graph": 0.75}
    rows = [
        {**row, "seed": 0, "ours": 0.8, "tfmot": 0.7},
        {**row, "seed": 1, "ours": 0.82, "tfmot": 0.7},
    ]
    lines = qat.accuracy_table(rows).splitlines()
    assert len(lines) == 2 + len(qat.VARIANTS)
    ours, tfmot = lines[-2:]
    assert ours.endswith("| 81.0 ± 1.4 | +11.0 ± 1.4 | 1.00 points |")
    assert tfmot.endswith("| 70.0 ± 0.0 | +0.0 ± 0.0 | 5.00 points |")


def test_cost_table_shows_what_was_measured_so_far(load):
    qat, steps = load("qat"), {"ours_to_float": 1.08}
    ratios = {**dict.fromkeys(qat.RATIOS, 1.0), **steps}
    rows = [{"part": "steps", "step_ratios": ratios, "preparation_seconds": [5, 4, 4]}]
    table = qat.cost_table(rows)
    assert "| step, ours to float Keras 3 | 1.08 |" in table
    assert "tfmot | 4.00 s, the first 5.00 s |" in table
    assert "memory" not in table


def test_ratios_compare_within_a_round(load):
    quiet = {"ours": 1.1, **dict.fromkeys(("float", "tfmot", "keras2"), 1.0)}
    busy = {name: 3 * seconds for name, seconds in quiet.items()}
    ratios = load("qat_cost").ratios([quiet, busy, quiet])
    assert ratios["ours_to_float"] == pytest.approx(1.1)
    assert ratios["ours_to_tfmot"] == pytest.approx(1.1)


def test_pruning_table_gives_shares_of_the_dense_network(load):
    pruning = load("pruning")
    dense = {"flash_bytes": 1000, "ram_bytes": 800, "latency_ms": 10.0, "int8": 0.5}
    halved = {"flash_bytes": 500, "ram_bytes": 600, "latency_ms": 8.0, "int8": 0.49}
    rows = [
        {"variant": "dense", "seed": 0, **dense},
        {"variant": "channels_60", "seed": 0, **halved},
    ]
    last = pruning.table({"rows": rows}).splitlines()[-1]
    assert "| 500 (50 %) | 600 (75 %) | 8.0 ms (80 %) |" in last
    assert last.endswith("| 49.0 | -1.0 |")


def test_rivals_of_pruning_are_within_its_limits(load):
    pruning = load("pruning")
    full = pruning.FULL
    levers = omv.Levers(alpha=full.alpha, resolution=full.resolution, classes=10)
    images = np.zeros((1, 64, 64, 3), "uint8")
    data = pruning.ImageData(
        class_names=tuple("abcdefghij"),
        train_images=images,
        train_labels=np.zeros(1, "int64"),
        test_images=images,
        test_labels=np.zeros(1, "int64"),
    )
    task, dense = pruning.Task(full, data, 0), omv.estimate(levers)
    for variant in ("alpha_60", "alpha_40"):
        cost = omv.estimate(pruning.rival_levers(task, variant))
        flash, ram = pruning.LIMITS[variant]
        assert cost.flash_bytes <= flash * dense.flash_bytes
        assert ram is None or cost.ram_bytes <= ram * dense.ram_bytes
        assert cost.macs < dense.macs


def test_search_table_adds_up_the_budgets(load):
    search = load("search")
    row = {"given_up": 1, "infeasible_trials": 2, "trials": 3000, "epochs_mean": 4.4}
    rows = [{"search": name, **row} for name in search.TITLES for _ in range(2)]
    last = search.table({"seeds": 50, "rows": rows}).splitlines()[-1]
    assert last.endswith("`max_model_size` | 4 | 2 of 100 | 4 of 6,000 |")


def test_accuracy_gaps_are_those_of_each_seed(load):
    rows = [
        {"data": "flowers", "images": 1000, "float32": float32, "int8": int8}
        for float32, int8 in ((0.5, 0.49), (0.6, 0.59))
    ]
    last = load("int8_accuracy").table({"rows": rows}).splitlines()[-1]
    assert last == "| flowers | 1,000 | 2 | 55.0 ± 7.1 | 54.0 ± 7.1 | -1.0 ± 0.0 |"


def test_the_readme_has_the_tables_of_the_benchmarks(load):
    readme = load("readme")
    text = readme.README.read_text()
    assert readme.rendered(text) == text


def test_a_table_of_the_readme_is_replaced_between_its_marks(load, monkeypatch):
    readme = load("readme")
    monkeypatch.setattr(readme, "tables", lambda: {"a": "new", "b": "newer"})
    text = "x\n<!-- table: {} -->\n\n| old |\n\n<!-- end -->\ny\n"
    after = readme.rendered(text.format("a") + text.format("b"))
    assert after == "".join(
        f"x\n<!-- table: {name} -->\n\n{table}\n\n<!-- end -->\ny\n"
        for name, table in (("a", "new"), ("b", "newer"))
    )


@pytest.mark.parametrize("names", ["a", "aba", "abc"])
def test_a_table_that_is_missing_unknown_or_there_twice_is_told(
    load, monkeypatch, names
):
    readme = load("readme")
    monkeypatch.setattr(readme, "tables", lambda: {"a": "new", "b": "newer"})
    text = "".join(f"<!-- table: {name} -->\n\n<!-- end -->\n" for name in names)
    with pytest.raises(ValueError, match=r"once each: \['a', 'b'\]. Received: \['a'"):
        readme.rendered(text)


def test_the_readme_has_the_shares_of_watching(load):
    (row,) = json.loads(load("tracking").PATH.read_text())["rows"]
    shares = row["shares"]
    readme = " ".join((FOLDER.parent / "README.md").read_text().split())
    most = max(shares["monitor"], shares["monitor_while_pruning"])
    assert f"That takes {most:.1%} of an epoch".replace("%", " %") in readme
    every = f"take {shares['monitor_with_accuracies']:.0%} of it".replace("%", " %")
    assert every in readme
    seldom = f"all together takes {shares['monitor_with_seldom_accuracies']:.1%}."
    assert seldom.replace("%", " %") in readme
    assert f"The first time takes {row['first_measuring_seconds']:.0f} s," in readme


def test_the_readme_has_the_memory_of_a_training(load):
    rows = json.loads(load("qat").PATH.read_text())["rows"]
    (row,) = (row for row in rows if row.get("part") == "memory")
    readme = " ".join((FOLDER.parent / "README.md").read_text().split())
    before = row["ours"]["before_bytes"] / 1e6
    assert f"{round(before, -1):.0f} MB are TensorFlow itself" in readme
    added, usual = (
        row[name]["peak_bytes"] - row[name]["before_bytes"]
        for name in ("ours", "float")
    )
    assert f"adds to that is {added / usual:.2f} times float's" in readme


def test_the_readme_has_the_seconds_of_an_export(load):
    content = json.loads(load("export_time").PATH.read_text())
    readme = " ".join((FOLDER.parent / "README.md").read_text().split())
    seconds = content["stages"]["omv.export, all of it"]["wall_seconds"]
    images = f"{content['images']:,} test images at alpha 0.35 and 96 px"
    assert f"{images} takes {seconds:.0f} s on two cores" in readme
    assert content["hardware"]["cores"] == 2
    widths = json.loads(load("file_size").PATH.read_text())["widths"]
    times = [row["times_as_fast"] for row in widths]
    times.append(1 / content["our_conversion_over_tensorflows"]["cpu"])
    low, high = (f"{number(times):.0f}" for number in (min, max))
    assert f"the conversion is {low} to {high} times as fast" in readme
