"""Weight files of every kind through the front door: `pretrained.load`, `save`, `inspect` and `jaxdl weights`."""

import collections
import io
import json
import sys
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy
from conftest import fill
from hypothesis import given
from hypothesis import strategies as st
from test_layouts import GOLDEN, PEERS, tensors
from test_torch_file import Hostile, Tensor, write, write_zip

from jaxdl import cli, models, pretrained, trees
from jaxdl.data import Preprocessing
from jaxdl.errors import BadFile, InputError
from jaxdl.pretrained import hub

PREPROCESSING = Preprocessing(16, 0.9, "bilinear", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
PEER = "torchvision/efficientnet_b0"


@pytest.fixture(scope="module")
def small():
    """The bytes of a small file of ours, and the variables in it."""
    model = models.create("tiny_vgg", 2)
    return fill(model, (16, 16, 3))


def saved(path, variables):
    said = {"source": 'näh "sha256":"0"', "licence": "MIT", "classes": ("a", "b")}
    pretrained.save(path, "tiny_vgg", variables, PREPROCESSING, **said)
    return path


def test_our_file_comes_back_whole(small, tmp_path):
    path = saved(tmp_path / "ours.safetensors", small)
    found = pretrained.read(path)
    assert (found.name, found.num_classes, found.preprocessing) == ("tiny_vgg", 2, PREPROCESSING)
    assert (found.licence, found.classes) == ("MIT", ("a", "b"))
    for name, array in trees.paths(small).items():
        np.testing.assert_array_equal(trees.paths(found.variables)[name], array)
    assert pretrained.inspect(path).verified
    assert [entry.name for entry in tmp_path.iterdir()] == ["ours.safetensors"]  # no draft is left


@given(data=st.data())
def test_any_flipped_bit_is_found(data, small, tmp_path_factory):
    path = saved(tmp_path_factory.mktemp("flip") / "ours.safetensors", small)
    whole = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    bit = data.draw(st.integers(0, 8 * header - 1) | st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)
    with pytest.raises(BadFile, match=r"ours\.safetensors"):
        pretrained.load(path)


@given(data=st.data())
def test_any_cut_is_found(data, small, tmp_path_factory):
    path = saved(tmp_path_factory.mktemp("cut") / "ours.safetensors", small)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, 64) | st.integers(0, len(whole) - 1))])
    with pytest.raises(BadFile, match=r"ours\.safetensors"):
        pretrained.load(path)


def test_a_source_that_says_what_it_is_is_not_told_something_else(small, tmp_path, monkeypatch):
    fake_hub(monkeypatch, tmp_path, CONFIG)
    path = saved(tmp_path / "ours.safetensors", small)
    for source, held in (
        (path, "tiny_vgg"),
        ("hf-hub:timm/x", "efficientnet_v2_b0"),
        ("efficientnet_lite0", "efficientnet_lite0"),
    ):
        with pytest.raises(InputError, match=f"{source} holds {held}, not efficientnet_b0"):
            pretrained.read(source, model="efficientnet_b0")
        with pytest.raises(InputError, match=f"{source} tells its flavour itself; leave out 'pytorch'"):
            pretrained.read(source, flavour="pytorch")
    assert pretrained.read("hf-hub:timm/x", model="efficientnet_v2_b0").name == "efficientnet_v2_b0"


def test_our_names_without_a_digest_are_refused(small, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.numpy.save(trees.paths(small)))
    with pytest.raises(BadFile, match="not its description and digest"):
        pretrained.load(path)


def test_only_a_model_with_its_own_variables_is_saved(small, tmp_path):
    with pytest.raises(InputError, match="not the variables of dense"):
        pretrained.save(tmp_path / "x.safetensors", "dense", small, PREPROCESSING)
    with pytest.raises(InputError, match="3 names for 2 classes"):
        pretrained.save(tmp_path / "x.safetensors", "tiny_vgg", small, PREPROCESSING, classes="abc")
    with pytest.raises(InputError, match="cannot write"):
        saved(tmp_path / "no" / "x.safetensors", small)
    assert not list(tmp_path.iterdir())


def keras_h5(stream, weights, *, root, layers):
    """As Keras writes: an `.h5` with `weight_names`, or with `layers` a `.weights.h5`."""
    grouped = collections.defaultdict(dict)
    for name, array in weights.items():
        layer, leaf = name.split("/")
        grouped[layer][leaf] = array
    with h5py.File(stream, "w") as file:
        for n, (layer, leaves) in enumerate(grouped.items()):
            if layers:
                group = file.create_group(f"layers/conv2d_{n}/vars")
                group.attrs["name"] = layer
                for m, array in enumerate(leaves.values()):
                    group[str(m)] = array
            else:
                group = file.create_group(f"{root}{layer}")
                group.attrs["weight_names"] = [f"{layer}/{leaf}:0".encode() for leaf in leaves]
                for leaf, array in leaves.items():
                    group[f"{layer}/{leaf}:0"] = array


def as_file(path, peer, form):
    """A peer's tensors in a file as the peer's library writes it."""
    given = tensors(peer)
    arrays = {name: array.astype(np.int64) if array.ndim == 0 else array for name, array in given.items()}
    if form == "pth":
        path.write_bytes(write(collections.OrderedDict((name, Tensor(array)) for name, array in arrays.items())))
    elif form == "zip":
        path.write_bytes(write_zip(collections.OrderedDict((name, Tensor(array)) for name, array in arrays.items())))
    elif form == "safetensors":
        path.write_bytes(safetensors.numpy.save(arrays, {"format": "pt"}))
    elif form == "keras":
        stream = io.BytesIO()
        keras_h5(stream, given, root="", layers=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", stream.getvalue())
    else:
        keras_h5(path, given, root="model_weights/" if form == "whole" else "", layers=form == "weights")
    return path


@pytest.mark.parametrize(
    ("peer", "form", "file", "size", "options"),
    [
        (PEER, "pth", "any.pth", 224, {"padding": "symmetric", "bn_epsilon": 1e-5}),
        (PEER, "zip", "any.pth", 224, {"padding": "symmetric", "bn_epsilon": 1e-5}),
        (PEER, "safetensors", "any.safetensors", 224, {"padding": "symmetric", "bn_epsilon": 1e-5}),
        ("torchvision/efficientnet_v2_s", "safetensors", "any.safetensors", 384, {"padding": "symmetric"}),
        ("timm/tf_efficientnetv2_b0", "safetensors", "tf_efficientnetv2_b0-c7c.safetensors", 224, {}),
        (
            "timm/efficientnet_lite0",
            "zip",
            "efficientnet_lite0_ra.pth",
            224,
            {"padding": "symmetric", "bn_epsilon": 1e-5},
        ),
        ("efficientnet-pytorch/efficientnet-b0", "pth", "efficientnet-b0.pth", 224, {}),
        ("Keras/EfficientNetB0", "whole", "b0.h5", 224, {}),
        ("Keras/EfficientNetB0", "h5", "b0_notop.h5", 224, {}),
        ("Keras/EfficientNetB0", "weights", "b0.weights.h5", 224, {}),
        ("Keras/EfficientNetV2B0", "keras", "b0.keras", 224, {}),
    ],
)
def test_every_kind_of_file_is_read(peer, form, file, size, options, tmp_path):
    path = as_file(tmp_path / file, peer, form)
    found = pretrained.read(path)
    assert (found.name, found.options, found.num_classes) == (*PEERS[peer], 4)
    assert (found.options, found.preprocessing.size, found.layout) == (options, size, peer.split("/")[0])
    reference = pretrained.layouts.from_layout(tensors(peer), models.shapes(found.model, (size, size, 3))[0], peer)
    for name, array in trees.paths(reference).items():
        np.testing.assert_array_equal(trees.paths(found.variables)[name], array)


def test_keras_normalisation_becomes_preprocessing(tmp_path):
    given = tensors("Keras/EfficientNetB0")
    name = next(name for name in given if name.endswith("/variance") and name.startswith("normalization"))
    given[name.replace("variance", "mean")] = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    for stored in (deviation, deviation**2):  # the published files have the one, `adapt` makes the other
        keras_h5(tmp_path / "b0.h5", given | {name: stored}, root="", layers=False)
        preprocessing = pretrained.read(tmp_path / "b0.h5").preprocessing
        np.testing.assert_allclose(preprocessing.std, 255 * deviation, atol=1e-3)
        np.testing.assert_allclose(preprocessing.mean, [123.675, 116.28, 103.53], atol=1e-3)


def test_timms_flavour_is_asked_for_where_nothing_tells_it(tmp_path):
    path = as_file(tmp_path / "mine.safetensors", "timm/tf_efficientnetv2_b0", "safetensors")
    with pytest.raises(InputError, match=r"jaxdl weights convert .*mine\.safetensors OUT.* --flavour"):
        pretrained.load(path)
    assert pretrained.inspect(path).options is None
    assert pretrained.read(path, flavour="pytorch").options["padding"] == "symmetric"
    assert pretrained.read(path, flavour="tensorflow").options == {}


def hostile(mark):
    return write_zip({"a": Tensor(np.zeros(2, "f4")), "b": Hostile(mark)})


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("text.pth", lambda tmp: b"just some text, nothing else", "no weight file of"),
        ("empty.safetensors", lambda tmp: b"", "is empty"),
        ("hostile.pth", lambda tmp: hostile(tmp / "was-here"), "not part of a state dict"),
        ("other.safetensors", lambda tmp: safetensors.numpy.save({"fc.weight": np.zeros((2, 2))}), "no EfficientNet"),
        ("cut.h5", lambda tmp: b"\x89HDF\r\n\x1a\n" + bytes(100), "not a Keras file"),
        ("cut.keras", lambda tmp: b"PK\x03\x04model.weights.h5", "damaged"),
        ("gone.pth", lambda tmp: None, "cannot be read"),
    ],
)
def test_bad_files_are_one_line_that_names_them(file, content, reason, tmp_path, capsys):
    if (data := content(tmp_path)) is not None:
        (tmp_path / file).write_bytes(data)
    for command in (
        ["inspect", str(tmp_path / file)],
        ["convert", str(tmp_path / file), str(tmp_path / "o.safetensors")],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["weights", *command])
        said = capsys.readouterr()
        assert stop.value.code == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert file in said.err
        assert reason in said.err
    assert {entry.name for entry in tmp_path.iterdir()} <= {file}


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(BadFile, match="is a directory"):
        pretrained.load(tmp_path)


def test_another_architecture_is_compared_with_the_nearest(tmp_path):
    given = tensors(PEER)
    del given["features.4.1.block.1.0.weight"]
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.numpy.save(given))
    with pytest.raises(InputError, match=r"features\.4\.1\.block\.1\.0\.weight.*efficientnet_b0, the nearest"):
        pretrained.load(path)
    with pytest.raises(InputError, match=r"x\.safetensors holds another.*efficientnet_b1\)"):
        pretrained.load(path, model="efficientnet_b1")
    with pytest.raises(InputError, match="nearest: efficientnet_b1"):
        pretrained.load(path, model="efficientnet_b11")


@pytest.mark.parametrize("damage", ["external", "huge", "nameless", "another model"])
def test_h5_files_that_are_not_what_they_say_are_refused(damage, tmp_path):
    path = tmp_path / "x.weights.h5"
    (tmp_path / "secret").write_bytes(bytes(4))
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        if damage != "nameless":
            group.attrs["name"] = "stem_conv" if damage != "another model" else "conv1"
        if damage == "external":
            group.create_dataset("0", (1,), "f4", external=[(str(tmp_path / "secret"), 0, 4)])
        elif damage == "huge":
            group.create_dataset("0", (1 << 40,), "f4", chunks=(1024,))
        else:
            group["0"] = np.zeros((3, 3, 3, 32), "f4")
    reason = {"nameless": "names of its layers", "another model": "no EfficientNet"}.get(
        damage, "not stored in the file"
    )
    with pytest.raises(InputError, match=rf"x\.weights\.h5.*{reason}"):
        pretrained.load(path)


@pytest.mark.parametrize(
    ("package", "extra", "source"), [("h5py", "keras", "x.h5"), ("huggingface_hub", "hub", "hf-hub:a/b")]
)
def test_what_is_not_installed_is_named(package, extra, source, monkeypatch, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{source}.*jaxdl\[{extra}\]"):
        pretrained.load(source if source.startswith("hf") else tmp_path / source)


CONFIG = {
    "architecture": "tf_efficientnetv2_b0",
    "label_names": ["a", "b", "c", "d"],
    "pretrained_cfg": {
        "input_size": [3, 192, 192],
        "test_input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "license": "apache-2.0",
    },
}


def fake_hub(monkeypatch, folder, config):
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    as_file(folder / "model.safetensors", "timm/tf_efficientnetv2_b0", "safetensors")
    monkeypatch.setattr(hub, "fetch", lambda repository, file: folder / file)


def test_the_hub_says_what_a_repository_holds(monkeypatch, tmp_path):
    fake_hub(monkeypatch, tmp_path, CONFIG)
    found = pretrained.read("hf-hub:timm/x")
    assert (found.name, found.options, found.classes) == ("efficientnet_v2_b0", {}, ("a", "b", "c", "d"))
    assert found.preprocessing == Preprocessing(224, 0.875, "bicubic", (127.5,) * 3, (127.5,) * 3)
    assert (found.source, found.licence) == ("hf-hub:timm/x", "apache-2.0")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CONFIG | {"architecture": "resnet50"}, "'resnet50', which is not"),
        (CONFIG | {"architecture": "efficientnet_b0_gn"}, "nearest: efficientnet_b0"),
        (CONFIG | {"architecture": "tf_efficientnet_b0"}, "another architecture"),
        ({"architecture": "tf_efficientnet_b0"}, "not timm's"),
        (CONFIG | {"pretrained_cfg": CONFIG["pretrained_cfg"] | {"interpolation": "random"}}, "not timm's"),
        (CONFIG | {"pretrained_cfg": CONFIG["pretrained_cfg"] | {"crop_pct": 2}}, "not timm's"),
        (CONFIG | {"pretrained_cfg": 3}, "not timm's"),
        ([], "not timm's"),
        ("{", "not JSON"),
    ],
)
def test_what_the_hub_says_is_checked(config, reason, monkeypatch, tmp_path):
    fake_hub(monkeypatch, tmp_path, config)
    with pytest.raises(InputError, match=reason):
        pretrained.load("hf-hub:timm/x")


def test_offline_is_said_soon(monkeypatch, tmp_path):
    import huggingface_hub

    def download(repository, file, local_files_only=False):
        assert local_files_only, "the hub is asked although it cannot be reached"
        raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "_reachable", lambda: False)
    with pytest.raises(
        InputError, match=r"hf-hub:a/b: config\.json is not in the cache, and the hub cannot be reached"
    ):
        pretrained.load("hf-hub:a/b")


def test_to_timm_and_back_from_the_command_line(tmp_path, capsys):
    peer = "timm/efficientnet_lite0"
    given = as_file(tmp_path / "efficientnet_lite0.pth", peer, "zip")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    cli.main(["weights", "convert", str(given), str(ours), "--licence", "MIT"])
    cli.main(["weights", "convert", str(ours), str(theirs), "--to", "timm"])
    assert "timm.create_model('efficientnet_lite0', num_classes=4)" in capsys.readouterr().out
    back = safetensors.numpy.load_file(theirs)
    assert {name: list(array.shape) for name, array in back.items()} == GOLDEN[peer]["shapes"]
    for name, array in tensors(peer).items():
        np.testing.assert_array_equal(back[name], array)
    cli.main(["weights", "inspect", str(ours), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (said["licence"], said["verified"], said["architecture"]) == ("MIT", True, "efficientnet_lite0")
    with pytest.raises(SystemExit):
        cli.main(["weights", "convert", str(given), str(ours)])
    assert "exists already" in capsys.readouterr().err
