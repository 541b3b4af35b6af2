import numpy as np
import pytest

from tlcli.batches import Batches
from tlcli.errors import UsageError


def test_every_epoch_is_all_points_once():
    batches = Batches(7, 3, 0, 0, 1)
    assert batches.per_epoch == 3
    epochs = [np.concatenate([batches.rows(3 * e + k) for k in range(3)]) for e in range(2)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert [len(batches.rows(k)) for k in range(4)] == [3, 3, 1, 3]
    assert epochs[0].tolist() != epochs[1].tolist()
    assert np.allclose(batches.weights(2).sum(), 7)
    assert np.count_nonzero(batches.weights(0)) == 3


def test_draws_stages_and_seeds_have_batches_of_their_own():
    first = Batches(20, 5, 0, 0, 1).rows(0).tolist()
    assert Batches(20, 5, 0, 0, 1).rows(0).tolist() == first
    assert all(Batches(20, 5, *key).rows(0).tolist() != first for key in ((1, 0, 1), (0, 1, 1), (0, 0, 2)))


def test_more_points_than_there_are():
    with pytest.raises(UsageError, match="batch = 9: the target has 8 training points; use 1 to 8"):
        Batches(8, 9, 0, 0, 2)
