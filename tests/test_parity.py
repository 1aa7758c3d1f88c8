"""The outputs of PyTorch's EfficientNets, kept as numbers: `python -m benchmarks.parity --golden` writes them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import formula, parity
from jaxdl import trees

GOLDEN = json.loads((Path(__file__).parent / "golden" / "efficientnet.json").read_text())
CASES = {case["peer"]: case for case in GOLDEN["cases"]}
SLOW = {"efficientnet_b2", "efficientnet_v2_b3", "efficientnet_v2_s"}


def ours(case):
    return parity.Ours(case["ours"]["name"], tuple(case["ours"]["options"].items()))


def given(case, dtype):
    count, height, width, _ = GOLDEN["shape"]
    arrays = formula.variables(ours(case).model()), formula.images(count, height, width)
    return jax.tree.map(lambda array: array.astype(dtype), arrays)


def assert_probes(arrays, expected, limit):
    """If two arrays differ by the share `limit` of their length, so do their products with a third one, at most."""
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        length = np.linalg.norm(array) * np.linalg.norm(formula.uniform(f"probe/{name}", array.shape))
        assert abs(formula.probe(name, array) - expected[name]) <= limit * length, name


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=peer, marks=[pytest.mark.slow] if case["ours"]["name"] in SLOW else [])
        for peer, case in CASES.items()
    ],
)
def test_logits_are_those_of_pytorch(case):
    variables, x = given(case, "float32")
    evaluate, _ = parity.programs(ours(case))
    logits = np.asarray(evaluate(variables, x))
    largest = np.abs(logits).max()
    np.testing.assert_allclose(logits[:, :8], case["logits"], rtol=0, atol=parity.SINGLE_LIMIT * largest)
    assert_probes({"logits": logits}, {"logits": case["probe"]}, parity.SINGLE_LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=peer) for peer, case in CASES.items() if "train" in case])
def test_a_step_is_that_of_pytorch(case):
    """In float64, where what is not rounding stands out: float32 rounding alone changes gradients by 1e-5."""
    variables, x = given(case, "float64")
    with parity.precision("float64"):
        _, train = parity.programs(ours(case), "float64")
        (loss, (_, statistics)), gradients = train(
            variables["params"], variables["batch_stats"], x, formula.labels(len(x))
        )
    assert float(loss) == pytest.approx(case["train"]["loss"], rel=parity.DOUBLE_LIMIT)
    assert_probes(parity.by_module(trees.paths(statistics)), case["train"]["statistics"], parity.DOUBLE_LIMIT)
    assert_probes(parity.by_module(trees.paths(gradients)), case["train"]["gradients"], parity.DOUBLE_LIMIT)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_v2_s"])
def test_the_flavours_are_further_apart_than_rounding(name):
    one, other = (np.array(case["logits"]) for case in CASES.values() if case["ours"]["name"] == name)
    assert np.abs(one - other).max() > 100 * parity.SINGLE_LIMIT * np.abs(one).max()


def test_the_formula_gives_the_same_bits_everywhere():
    u = formula.uniform("stem", (2, 3))
    np.testing.assert_array_equal(u * 2**23 % 1, 0)
    np.testing.assert_array_equal((u * 2**23).astype(int), [[5926824, 6598903, 7885642], [4001272, 1813540, 3368849]])
    assert trees.count(formula.variables(parity.same("efficientnet_b0").model())["params"]) == 5_288_548
