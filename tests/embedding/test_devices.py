import pytest
import torch

from transmiter_cli.embedding.devices import choose_device
from transmiter_cli.errors import UsageError


def test_a_device_that_is_not_there_is_a_usage_error():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="'nonsense' is no device to compute on: cpu, cuda"):
        choose_device("nonsense")
