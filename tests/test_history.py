import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.errors import InputError
from jaxdl.history import History, better, plain, stale

figures = st.lists(st.floats(-10, 10) | st.just(float("nan")), max_size=12)


def rows(values, name="val_loss"):
    return History({"epoch": n, "loss": 1.0, name: value} for n, value in enumerate(values, 1))


@given(figures)
def test_the_best_row_is_numpys(values):
    numbers = np.array(values, float)
    for name, choose in (("val_loss", np.nanargmin), ("val_accuracy", np.nanargmax), ("val_top_error", np.nanargmin)):
        best = rows(values, name).best(name)
        if np.isnan(numbers).all():
            assert best is None
        else:
            assert best["epoch"] == choose(numbers) + 1


@given(figures, st.floats(0, 3))
def test_what_is_stale_has_not_got_better_for_so_many_epochs(values, least):
    best, waited = np.inf, 0
    for value in values:
        improved = value < best - least if np.isfinite(best) else not np.isnan(value)
        best, waited = (value, 0) if improved else (best, waited + 1)
    assert stale(rows(values), "val_loss", least) == waited


def test_better_is_lower_for_errors_and_higher_for_the_rest():
    low, high = {"val_mae": 1.0, "f1": 0.5, "lossless": 0.1}, {"val_mae": 2.0, "f1": 0.6, "lossless": 0.2}
    assert better("val_mae", low, high)
    assert better("f1", high, low)
    assert better("lossless", high, low)
    assert not better("f1", low, low)
    assert better("f1", low, {})
    assert not better("f1", {}, low)


def test_columns_frames_and_pictures():
    history = History(
        [
            {"epoch": 1, "phase": "train", "step": 3, "loss": 2.0, "accuracy": 0.5, "learning_rate": 0.1},
            {"epoch": 2, "phase": "train", "step": 6, "loss": 1.0, "accuracy": 0.7, "learning_rate": 0.0},
        ]
    )
    np.testing.assert_array_equal(history.column("loss"), [2, 1])
    assert history.metrics == ("accuracy",)
    frame = history.to_pandas()
    assert list(frame.index) == [1, 2]
    assert frame["accuracy"].tolist() == [0.5, 0.7]
    assert len(History().to_pandas()) == 0
    assert history.plot().axes[1].get_ylabel() == "accuracy"
    with pytest.raises(InputError, match="no 'acuracy'; the nearest: accuracy"):
        history.column("acuracy")


def test_a_frame_needs_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        History().to_pandas()


def test_plain_data_are_what_json_holds():
    assert plain(({"a": np.arange(2)}, np.float32(0.5))) == [{"a": [0, 1]}, 0.5]
