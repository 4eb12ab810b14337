import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.embedding.storage.index import ABSENT, DIGEST_BYTES, RowIndex, key_digests

shards = st.lists(st.lists(st.binary(min_size=1, max_size=3), max_size=6), max_size=6)
"""Few distinct keys, so that many come twice; NUL bytes among them, which numpy cuts off at the end."""


def as_digests(keys: list[bytes]) -> np.ndarray:
    return np.array([key.rjust(DIGEST_BYTES, b"\0") for key in keys], dtype=f"S{DIGEST_BYTES}")


@given(shards, st.integers(0, 6), st.integers(0, 6))
def test_the_index_is_a_dictionary_that_keeps_the_first_place(written: list[list[bytes]], at_once: int, dropped: int):
    index, expected = RowIndex(), dict[bytes, tuple[int, int]]()
    index.add([as_digests(keys) for keys in written[:at_once]], 0)
    index.add([as_digests(keys) for keys in written[at_once:]], len(written[:at_once]))
    for number, keys in enumerate(written):
        for row, key in enumerate(keys):
            expected.setdefault(key.rjust(DIGEST_BYTES, b"\0"), (number, row))
    index.drop(dropped)
    expected = {key: place for key, place in expected.items() if place[0] != dropped}
    asked = [key for keys in written for key in keys] + [b"nowhere"]
    places = index.find(as_digests(asked)).tolist()
    assert places == [list(expected.get(key.rjust(DIGEST_BYTES, b"\0"), (ABSENT, ABSENT))) for key in asked]
    assert len(index) == len(expected)


def test_keys_that_differ_have_digests_that_differ():
    keys = [f"/photos/{number}.jpg|17|{number % 7}" for number in range(5000)]
    assert len(np.unique(key_digests(keys))) == 5000
    assert key_digests(["\udcff.jpg", None]).tolist()[1] == b""
