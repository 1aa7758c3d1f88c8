"""Features computed once: equal to those of the network, found again only where nothing has changed."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill

import jaxdl
from jaxdl import augment, data, features, models, optim, parallel
from jaxdl.errors import InputError
from jaxdl.optim import Phase

MODEL = models.create("cnn", 3, filters=(4,), hidden=(5,), dropout=0.3)
VARIABLES = fill(MODEL, (8, 8, 1))
PIXELS = data.Preprocessing(8, mean=(10.0,), std=(99.0,))
FLIP = augment.Affine(flip=True, rotate=30)


def pictures(n=21, seed=0):
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return data.from_arrays((labels[:, None, None] * 70 + draw.integers(0, 99, (n, 8, 8))).astype(np.uint8), labels)


def extract(**options):
    options = {"normalize": PIXELS.normalize, "batch_size": 8} | options
    source = options.pop("source", pictures())
    return features.extract(MODEL, options.pop("variables", VARIABLES), source, **options)


def test_features_are_what_the_head_would_see():
    trunk = models.without_head(MODEL)
    expected = trunk.apply(VARIABLES, PIXELS.normalize(pictures().inputs), train=False)
    (view,) = extract()
    np.testing.assert_allclose(view, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(extract(mesh=parallel.make_mesh())[0], expected, rtol=1e-5, atol=1e-5)


def test_views_are_drawn_anew_and_reproducibly():
    once, again = (extract(views=2, augment=FLIP) for _ in range(2))
    assert once.shape == (3, 21, 5)
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once[0], extract()[0])
    assert not np.array_equal(once[0], once[1])
    assert not np.array_equal(once[1], once[2])
    assert not np.array_equal(once[1], extract(views=2, augment=FLIP, seed=1)[1])


def test_kept_features_are_read_back_without_running_the_network(tmp_path, monkeypatch):
    first = extract(folder=tmp_path, views=2, augment=FLIP)
    assert isinstance(first, np.memmap)
    np.testing.assert_array_equal(first, extract(views=2, augment=FLIP))
    monkeypatch.setattr(features, "batches", None)  # whoever asks for data now fails
    np.testing.assert_array_equal(extract(folder=tmp_path, views=2, augment=FLIP), first)
    assert len(list(tmp_path.iterdir())) == 1


def changed(variables, path):
    copy = jax.tree.map(np.copy, variables)
    *modules, name = path.split("/")
    tree = copy
    for module in modules:
        tree = tree[module]
    tree[name].flat[-1] = np.nextafter(tree[name].flat[-1], np.float32(9))
    return copy


OTHER = pictures()
OTHER.inputs.flat[-1] ^= 1


@pytest.mark.parametrize(
    "change",
    [
        {"variables": changed(VARIABLES, "params/conv_0_0/kernel")},
        {"variables": changed(VARIABLES, "params/dense_0/bias")},
        {"source": OTHER},
        {"source": pictures(22)},
        {"normalize": data.Preprocessing(8, mean=(10.0,), std=(99.5,)).normalize},
        {"normalize": None},
        {"augment": augment.Affine(flip=True, rotate=31)},
        {"views": 2},
        {"seed": 1},
    ],
)
def test_a_stale_file_is_never_used(change, tmp_path):
    options = {"augment": FLIP, "views": 1}
    extract(folder=tmp_path, **options)
    options |= change
    np.testing.assert_array_equal(extract(folder=tmp_path, **options), extract(**options))
    assert len(list(tmp_path.iterdir())) == 2


def test_the_head_and_the_labels_do_not_matter(tmp_path):
    extract(folder=tmp_path)
    relabelled = data.from_arrays(pictures().inputs, np.zeros(21, int))
    extract(folder=tmp_path, source=relabelled, variables=changed(VARIABLES, "params/head/kernel"))
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_kept(tmp_path):
    with pytest.raises(InputError, match="does not tell what it does"):
        extract(folder=tmp_path, normalize=lambda x: x / 255)
    with pytest.raises(InputError, match="does not tell what it does"):
        extract(folder=tmp_path, views=1, augment=lambda key, x: x)
    assert extract(normalize=lambda x: x / 255.0).shape == (1, 21, 5)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot keep files in"):
        extract(folder=tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_2_0", full)
    with pytest.raises(InputError, match="No space left"):
        extract(folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    extract(folder=tmp_path)
    (path,) = tmp_path.iterdir()
    for damage in (b"", path.read_bytes()[:-9], b"x" * 200):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=f"{path.name} is damaged"):
            extract(folder=tmp_path)


def fit(phase, **options):
    return jaxdl.fit(
        MODEL,
        pictures(),
        pictures(10, 1),
        variables=VARIABLES,
        phases=phase,
        batch_size=8,
        normalize=PIXELS.normalize,
        progress=False,
        **options,
    )


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_head_trained_on_features_is_the_head_trained_in_the_network(ema):
    phase = Phase(4, 0.05, trainable=("head",), ema=ema)
    plain, cached = fit(phase), fit(replace(phase, views=3))  # without augmentation there is but one view
    chex.assert_trees_all_close(cached.variables, plain.variables, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(cached.state.opt_state, plain.state.opt_state, rtol=1e-3, atol=1e-5)
    assert int(cached.state.step) == int(plain.state.step) == 12
    for a, b in zip(plain.history, cached.history, strict=True):
        figures = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
        assert {name: a[name] for name in figures} == pytest.approx({name: b[name] for name in figures}, rel=1e-4)


def test_callbacks_see_the_whole_network_and_the_trunk_keeps_every_bit():
    seen = []
    fit(Phase(2, 0.05, trainable=("head",), views=2), augment=FLIP, callbacks=[lambda e: seen.append(e.state)])
    for state in seen:
        trunk = {name: tree for name, tree in state.params.items() if name != "head"}
        chex.assert_trees_all_equal(trunk, {name: VARIABLES["params"][name] for name in trunk})
        assert state.params.keys() == VARIABLES["params"].keys()


def test_features_need_a_head_that_is_known_and_nothing_else_trained():
    with pytest.raises(InputError, match="trains conv_0_0/.*leave out its views"):
        fit(Phase(1, 0.05, views=2))
    with pytest.raises(InputError, match="cannot be negative"):
        Phase(1, 0.05, views=-1)

    class Foreign(models.dense.Dense.__mro__[1]):  # nn.Module
        def __call__(self, x, train=False):
            return jnp.zeros((len(x), 3))

    with pytest.raises(InputError, match="the head of a Foreign is not known"):
        features.checked_mask(Foreign(), Phase(1, 0.1, trainable=("head",), views=1), VARIABLES["params"])


def test_a_folder_of_files_is_known_by_its_contents(tmp_path):
    for n, name in enumerate("ab"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for m in range(3):
            pixels = np.full((8, 8), 40 * n + m, np.uint8)
            data.images.Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{m}.png")
    source = data.from_folder(tmp_path / "photos", PIXELS, validation=0, test=0).train
    before = source.digest()
    data.images.Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "photos" / "a" / "0.png")
    assert source.digest() != before
    assert source.digest() != replace(source, preprocessing=data.Preprocessing(9)).digest()


def test_prepare_gives_the_network_where_nothing_is_computed_once():
    stage = features.prepare(MODEL, VARIABLES, Phase(1, 0.1), pictures(), augment=FLIP)
    assert stage.model is MODEL
    assert stage.augment is FLIP
    state = jaxdl.train.init_state(VARIABLES, optim.optax.sgd(0.1), jax.random.key(0))
    chex.assert_trees_all_equal(stage.whole(state).params, VARIABLES["params"])
