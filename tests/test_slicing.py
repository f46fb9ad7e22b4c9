"""What a narrow MobileNetV2 keeps of a wider one."""

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import sklearn.datasets

import keras_omv as omv
from keras_omv import importance
from keras_omv.slicing import can_narrow, narrow

# Four blocks, and the residual one is third.
DEPTH, HEAD = 4, 32
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


def make(shape=(32, 32, 3), classes=10, *, alpha=0.5, depth=DEPTH, head_channels=HEAD):
    return omv.MobileNetV2(
        shape,
        classes,
        alpha=alpha,
        depth=depth,
        head_channels=head_channels,
        dropout=0.0,
    )


def scatter(model):
    """Gives every weight a value of its own, as training does."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            around_one = [rng.uniform(0.5, 2.0, shape) for _ in range(2)]
            around_zero = [rng.normal(0.0, 0.5, shape) for _ in range(2)]
            layer.set_weights([around_one[0], *around_zero, around_one[1]])
        elif layer.weights:
            layer.set_weights([rng.normal(0.0, 0.2, w.shape) for w in layer.weights])
    return model


def features(model, images):
    """What comes out of the head, before the classifier."""
    return np.asarray(keras.Model(model.input, model.get_layer("pool").output)(images))


def weights_of(model, name):
    return model.get_layer(name).get_weights()


@pytest.fixture(scope="module")
def wide():
    return scatter(make())


def test_equal_widths_keep_every_bit(wide):
    same = make()
    carried = narrow(wide, same)
    assert not carried.sliced
    assert not carried.initialised
    assert len(carried.whole) == sum(bool(layer.weights) for layer in same.layers)
    for mine, its in zip(same.get_weights(), wide.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    np.testing.assert_array_equal(same(IMAGES), wide(IMAGES))


def test_another_resolution_keeps_every_weight(wide):
    small = make((24, 40, 3))
    assert not narrow(wide, small).initialised
    for mine, its in zip(small.get_weights(), wide.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_grey_answers_as_the_same_grey_in_three_colours(wide):
    grey = make((32, 32, 1))
    assert narrow(wide, grey).sliced == ("stem",)
    image = IMAGES[..., :1]
    expected = wide(np.repeat(image, 3, axis=3))
    np.testing.assert_allclose(grey(image), expected, atol=1e-5)


def test_three_colours_of_one_grey_answer_as_the_grey():
    grey, colour = scatter(make((32, 32, 1))), make()
    narrow(grey, colour)
    image = IMAGES[..., :1]
    expected = grey(image)
    np.testing.assert_allclose(colour(np.repeat(image, 3, axis=3)), expected, atol=1e-5)


def test_other_classes_keep_all_but_the_classifier(wide):
    other = make(classes=3)
    before = weights_of(other, "scores")
    assert narrow(wide, other).initialised == ("scores",)
    for mine, its in zip(weights_of(other, "scores"), before, strict=True):
        np.testing.assert_array_equal(mine, its)
    np.testing.assert_array_equal(features(other, IMAGES), features(wide, IMAGES))


def test_a_source_without_a_classifier_leaves_the_target_its_own(wide):
    source, target = make(), make(alpha=0.35, head_channels=16)
    narrow(wide, source)
    source.get_layer("scores").set_weights([np.zeros((HEAD, 10)), np.zeros(10)])
    assert narrow(source, target).initialised == ("scores",)
    assert weights_of(target, "scores")[0].any()


def test_a_cut_within_a_stage_keeps_the_head():
    # Blocks 1 and 2 are one stage, and of alpha 0.5 one stream.
    source, target = scatter(make(depth=3)), make(depth=2)
    assert not narrow(source, target).initialised
    for name in ("block_1_project", "head", "scores"):
        np.testing.assert_array_equal(
            weights_of(target, name)[0], weights_of(source, name)[0]
        )


def test_a_cut_at_another_stage_leaves_head_and_classifier(wide):
    target = make(depth=3)
    assert narrow(wide, target).initialised == ("head", "head_bn", "scores")
    np.testing.assert_array_equal(
        weights_of(target, "block_2_project")[0], weights_of(wide, "block_2_project")[0]
    )


def test_channels_that_pass_nothing_on_are_the_ones_that_go():
    """A source with dead channels is sliced to what it computes, exactly."""
    source, target = scatter(make()), make(alpha=0.35, head_channels=16)
    wide_widths = importance.widths_of(source)
    thin_widths = importance.widths_of(target)
    rng = np.random.default_rng(1)

    def silence(names, count, kept):
        dead = rng.permutation(count)[kept:]
        for name in names:
            gamma, beta, mean, variance = weights_of(source, f"{name}_bn")
            gamma[dead] = beta[dead] = 0.0
            source.get_layer(f"{name}_bn").set_weights([gamma, beta, mean, variance])

    silence(["stem", "block_0_depthwise"], wide_widths.stem, thin_widths.stem)
    for index, (wide, thin) in enumerate(
        zip(wide_widths.blocks, thin_widths.blocks, strict=True)
    ):
        if index:
            silence([f"block_{index}_depthwise"], wide.expanded, thin.expanded)
    # Blocks 1 and 2 write one stream.
    blocks = list(zip(wide_widths.blocks, thin_widths.blocks, strict=True))
    for writers in ([0], [1, 2], [3]):
        wide, thin = blocks[writers[0]]
        names = [f"block_{index}_project" for index in writers]
        silence(names, wide.outputs, thin.outputs)
    silence(["head"], wide_widths.head, thin_widths.head)

    assert not narrow(source, target).initialised
    np.testing.assert_allclose(target(IMAGES), source(IMAGES), atol=1e-4)


def test_what_a_dropped_channel_added_to_the_mean_is_kept():
    """A channel that is always 6 goes, and the next layer's answer stays."""
    source, target = make(depth=1), make(depth=1, alpha=0.35, head_channels=16)
    scatter(source)
    gamma, beta, mean, variance = weights_of(source, "head_bn")
    gamma[16:], beta[16:] = 0.0, 9.0
    source.get_layer("head_bn").set_weights([gamma, beta, mean, variance])
    narrow(source, target)
    np.testing.assert_allclose(target(IMAGES), source(IMAGES), atol=1e-4)


def test_the_moments_of_a_rectified_channel_are_those_of_its_samples():
    source = scatter(make(depth=1))
    moments = importance.TrainedChannels(
        source, importance.widths_of(source)
    ).rectified_moments("head")
    gamma, beta, *_ = weights_of(source, "head_bn")
    normal = np.random.default_rng(0).normal(size=(100_000, HEAD))
    samples = np.clip(normal * gamma + beta, 0.0, 6.0)
    np.testing.assert_allclose(moments.mean, samples.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(
        np.sqrt(moments.variance), samples.std(axis=0), atol=0.03
    )


def test_streams_are_the_outputs_that_are_added():
    widths = importance.widths_of(omv.Levers(alpha=1.0, resolution=96, classes=2))
    stages = (1, 1, 2, 3, 4, 3, 3, 1)  # the stem, and the repeats of the paper
    expected = [stage for stage, count in enumerate(stages) for _ in range(count)]
    assert list(widths.streams) == expected


def test_levers_and_model_have_the_same_widths():
    levers = omv.Levers(
        alpha=0.35, resolution=32, classes=10, depth=DEPTH, head_channels=HEAD
    )
    assert importance.widths_of(make(alpha=0.35)) == importance.widths_of(levers)


def test_a_narrower_source_is_refused_and_the_target_unchanged(wide):
    narrow_source = make(alpha=0.35)
    before = wide.get_weights()
    assert not can_narrow(narrow_source, wide)
    with pytest.raises(ValueError, match="Expected a source with all blocks"):
        narrow(narrow_source, wide)
    for mine, its in zip(wide.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("other", ["a name", keras.Sequential(name="mine")])
def test_what_is_no_mobilenet_is_refused(wide, other):
    with pytest.raises(ValueError, match=r"a model that omv.MobileNetV2 made"):
        narrow(other, wide)


LEVERS = st.builds(
    omv.Levers,
    alpha=st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.35]),
    resolution=st.sampled_from([16, 33, 40]),
    channels=st.sampled_from([1, 3]),
    classes=st.sampled_from([2, 3]),
    head_channels=st.sampled_from([8, 24]),
    depth=st.integers(1, 5),
)


def model_of(levers):
    shape = (levers.resolution, levers.resolution, levers.channels)
    return make(
        shape,
        levers.classes,
        alpha=levers.alpha,
        depth=levers.depth,
        head_channels=levers.head_channels,
    )


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(LEVERS, LEVERS)
def test_every_pair_is_carried_or_refused_as_can_narrow_says(source, target):
    wide, thin = scatter(model_of(source)), model_of(target)
    if not can_narrow(source, target):
        with pytest.raises(ValueError, match="Expected a source with all blocks"):
            narrow(wide, thin)
        return
    carried = narrow(wide, thin)
    names = [*carried.whole, *carried.sliced, *carried.initialised]
    assert sorted(names) == sorted(x.name for x in thin.layers if x.weights)
    assert set(carried.initialised) <= {"head", "head_bn", "scores"}
    shape = (1, target.resolution, target.resolution, target.channels)
    assert np.isfinite(thin(np.full(shape, 200.0, "float32"))).all()


def digits():
    """Images of 32x32 pixels in [0, 255], and their labels."""
    data = sklearn.datasets.load_digits()
    images = np.kron(data.images * (255 / 16), np.ones((4, 4)))[..., None]
    return images.astype("float32"), data.target


def train(model, epochs):
    images, labels = digits()
    model.compile(
        keras.optimizers.Adam(3e-3),
        loss="sparse_categorical_crossentropy",
        jit_compile=False,
    )
    model.fit(images[:1200], labels[:1200], epochs=epochs, batch_size=32, verbose=0)
    return model


def accuracy(model):
    images, labels = digits()
    answers = np.asarray(model(images[1200:])).argmax(axis=1)
    return float((answers == labels[1200:]).mean())


def test_important_channels_keep_more_than_the_first_and_than_chance(monkeypatch):
    shape = (32, 32, 1)
    source = train(make(shape), epochs=4)
    important, first, scratch = (make(shape, alpha=0.35) for _ in range(3))
    narrow(source, important)
    with monkeypatch.context() as patch:
        patch.setattr(importance, "_descending", lambda _, reads: np.arange(len(reads)))
        narrow(source, first)
    assert accuracy(important) > accuracy(first) + 0.1
    trained = accuracy(train(important, epochs=1))
    assert trained > accuracy(train(scratch, epochs=1)) + 0.3
    assert trained > accuracy(source) - 0.1
