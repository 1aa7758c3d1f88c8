import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import trees
from jaxdl.errors import InputError

names = st.sampled_from(["stem", "blocks_1_0", "blocks_2_0", "head", "kernel", "bias", "a"])
leaves = st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float32))
nested = st.recursive(
    st.dictionaries(names, leaves, min_size=1), lambda inner: st.dictionaries(names, inner, min_size=1), max_leaves=12
)


@given(nested)
def test_paths_and_back(tree):
    flat = trees.paths(tree)
    assert len(flat) == len(jax.tree.leaves(tree))
    chex.assert_trees_all_equal(trees.from_paths(flat), tree)


@given(nested, st.data())
def test_split_and_join_are_inverse(tree, data):
    mask = jax.tree.map(lambda _: data.draw(st.booleans()), tree)
    chosen, rest = trees.split(tree, mask)
    assert set(trees.paths(chosen)) == {path for path, on in trees.paths(mask).items() if on}
    assert not set(trees.paths(chosen)) & set(trees.paths(rest))
    chex.assert_trees_all_equal(trees.join(chosen, rest), tree)
    assert trees.count(chosen) + trees.count(rest) == trees.count(tree)


@given(nested, st.data())
def test_a_module_is_frozen_when_nothing_in_it_moves(tree, data):
    mask = jax.tree.map(lambda _: data.draw(st.booleans()), tree)
    frozen = trees.frozen_modules(mask)
    for path, on in trees.paths(mask).items():
        modules = path.split("/")[:-1]
        for n in range(len(modules) + 1):
            if on:
                assert "/".join(modules[:n]) not in frozen
    everything_off = jax.tree.map(lambda _: False, tree)
    assert "" in trees.frozen_modules(everything_off)


def test_patterns_name_modules_not_beginnings():
    tree = {"block_1": {"kernel": 1}, "block_10": {"kernel": 1}, "head": {"kernel": 1}}
    assert trees.paths(trees.mask(tree, ["block_1"])) == {
        "block_1/kernel": True,
        "block_10/kernel": False,
        "head/kernel": False,
    }
    assert all(trees.paths(trees.mask(tree, ["*"])).values())


def test_a_pattern_that_matches_nothing_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match=r"'haed'.*nearest: head"):
        trees.mask({"head": {"kernel": 1}}, ["haed"])


def test_errors_of_split_and_join():
    with pytest.raises(InputError, match="another tree"):
        trees.split({"a": 1}, {"b": True})
    with pytest.raises(InputError, match="'a'"):
        trees.join({"a": 1}, {"a": 2})


def test_difference_lists_paths_and_shapes():
    old = {"a": np.zeros(3), "b": np.zeros(2), "c": np.zeros(())}
    new = {"a": np.zeros(4), "b": np.zeros(2), "d": np.zeros(())}
    text = trees.difference(old, new)
    assert all(part in text for part in ("missing   c", "left over d", "expected (3,), got (4,)"))
    assert trees.difference(old, old) == ""


def test_table_counts():
    tree = {"stem": {"kernel": np.zeros((3, 4))}, "head": {"bias": np.zeros(5)}}
    table = trees.table(tree, trees.mask(tree, ["head"]))
    assert table.splitlines()[-1] == "17 parameters: 5 trainable, 12 frozen"
    assert "frozen" in next(line for line in table.splitlines() if line.startswith("stem"))
