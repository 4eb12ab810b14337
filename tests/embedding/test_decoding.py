from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.embedding.decoding import plan_batches


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_every_missing_image_is_in_one_batch_of_at_most_the_size(missing: list[bool], size: int):
    batches = plan_batches(missing, size)
    assert sorted(i for batch in batches for i in batch) == [i for i, absent in enumerate(missing) if absent]
    assert all(0 < len(batch) <= size for batch in batches)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 8), st.sets(st.integers(0, 59), max_size=3))
def test_a_stopped_run_goes_on_with_the_batches_of_an_undisturbed_one(images: int, size: int, done: int, broken):
    """Also where images that cannot be decoded stay missing among those that were done."""
    undisturbed = plan_batches([True] * images, size)
    written = {i for batch in undisturbed[:done] for i in batch} - broken
    resumed = plan_batches([i not in written for i in range(images)], size)
    assert [batch for batch in undisturbed[done:] if batch not in resumed] == []
