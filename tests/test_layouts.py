"""Other libraries' tensors under our paths. `data/peers.json.gz` holds what those libraries themselves computed."""

import gzip
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import fill
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import models, trees
from jaxdl.errors import InputError
from jaxdl.pretrained import layouts

DATA = Path(__file__).parent / "data"
sys.path.insert(0, str(DATA))

# Behind the line that makes it importable.
from make_peers import CLASSES, PEERS, SIZE, images, tensor  # noqa: E402

GOLDEN = json.loads(gzip.decompress((DATA / "peers.json.gz").read_bytes()))


def tensors(peer):
    """A peer's state dict, the counters of batches and Keras's normalisation included."""
    return {name: tensor(name, shape) if shape else np.zeros(()) for name, shape in GOLDEN[peer]["shapes"].items()}


def like(name, num_classes=CLASSES):
    return models.shapes(models.create(name, num_classes), (SIZE, SIZE, 3))[0]


@pytest.mark.parametrize("peer", PEERS)
def test_the_logits_are_the_peers(peer):
    name, options = PEERS[peer]
    given = tensors(peer)
    found = layouts.identify(given, peer)
    assert (found.layout, found.architecture, found.num_classes) == (peer.split("/")[0], name, CLASSES)
    variables = layouts.from_layout(given, like(name), peer)
    model = models.create(name, CLASSES, **options)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images())
    quickly = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile, not to run
    logits = forward.compile(compiler_options=quickly)(variables, images())
    expected = np.array(GOLDEN[peer]["logits"])
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.startswith("timm")])
def test_to_timm_gives_back_every_tensor(peer):
    given = tensors(peer)
    back = layouts.to_timm(layouts.from_layout(given, like(PEERS[peer][0]), peer))
    assert back.keys() == given.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, given[name])
        assert array.dtype == (np.int64 if name.endswith("num_batches_tracked") else np.float32)


@pytest.mark.parametrize("name", [name for name in models.names() if models.parameters(name)])
def test_every_architecture_survives_timms_names(name):
    # Shapes alone: an array that repeats one number takes no memory.
    shapes = like(name)
    ours = trees.from_paths({p: np.broadcast_to(np.float32(0), leaf.shape) for p, leaf in trees.paths(shapes).items()})
    state = layouts.to_timm(ours)
    assert len(state) == len(trees.paths(ours)) + sum(p.endswith("/var") for p in trees.paths(ours))
    assert layouts.identify(state, "x") == layouts.Contents("timm", name, CLASSES, trees.count(ours["params"]))
    assert trees.difference(shapes, layouts.from_layout(state, shapes, "x")) == ""


@given(st.data())
def test_one_wrong_tensor_is_an_error_that_names_it(data):
    peer = data.draw(st.sampled_from([peer for peer in PEERS if PEERS[peer][0] == "efficientnet_b0"]))
    given = {name: np.broadcast_to(np.float32(0), shape) for name, shape in GOLDEN[peer]["shapes"].items() if shape}
    name = data.draw(st.sampled_from([name for name in given if "normalization" not in name]))
    change = data.draw(st.sampled_from(["missing", "left over", "another shape", "not of floating point"]))
    if change == "missing":
        del given[name]
        said = name
    elif change == "left over":
        given["one.more"], said = np.zeros(3), "one.more"
    elif change == "another shape":
        given[name], said = np.zeros((7, *given[name].shape), np.float32), "7"
    else:
        given[name], said = given[name].astype(np.int8), "is int8"
    with pytest.raises(InputError) as error:
        layouts.from_layout(given, like("efficientnet_b0"), "file.pth")
    assert str(error.value).startswith("file.pth holds another architecture: ")
    assert change in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_all_that_is_wrong_is_in_one_error():
    given = tensors("torchvision/efficientnet_b0")
    del given["features.0.0.weight"]
    given["extra"] = np.zeros(1)
    given["classifier.1.bias"] = np.zeros(5, np.float32)
    with pytest.raises(InputError, match=r"missing .*features\.0\.0.*left over extra.*head/bias is 5 where 4"):
        layouts.from_layout(given, like("efficientnet_b0"), "x")


@pytest.mark.parametrize("name", ["batch_normalization/gamma", "layer_normalization_1/beta", "normalization/gamma"])
def test_a_normalisation_in_the_head_of_a_keras_file_is_left_over(name):
    given = tensors("Keras/EfficientNetB0") | {name: np.zeros(4, np.float32)}
    with pytest.raises(InputError, match=f"left over {name}$"):
        layouts.from_layout(given, like("efficientnet_b0"), "x")


@pytest.mark.parametrize("tensors", [{}, {"layer1.0.conv.weight": np.zeros(3)}])
def test_other_networks_are_refused(tensors):
    with pytest.raises(InputError, match="x holds no EfficientNet"):
        layouts.identify(tensors, "x")
    for hidden in ((), (8,)):
        with pytest.raises(InputError, match="only an EfficientNet"):
            layouts.to_timm(fill(models.create("dense", 3, hidden=hidden), (4,)))
    with pytest.raises(InputError, match="no name for .*/blocks_1_0"):
        layouts.to_timm(fill(models.create("resnet9", 3, width=8), (8, 8, 3)))
