from hypothesis import given
from hypothesis import strategies as st

from jaxdl.errors import InputError, nearest


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.data())
def test_a_known_word_is_its_own_nearest(known, data):
    word = data.draw(st.sampled_from(known))
    assert word in nearest(word, known)


def test_nothing_is_near_in_an_empty_list():
    assert nearest("a", []) == ""


def test_it_is_a_value_error():
    assert issubclass(InputError, ValueError)
