"""What a caller may have changed for all of torch."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch


@contextmanager
def plain_torch() -> Generator[None]:
    """No default device or dtype of a caller's, no autocast, and exact products; also a decorator, `@plain_torch()`.

    Tensors are float32 and on the CPU where nothing else is said: random numbers are drawn there, so that they are the
    same everywhere, and moved to the inputs' device. Products of float32 are neither cast by `torch.autocast` nor
    computed in TF32 or bfloat16, with which solves lose what little the smallest directions are known by. Other threads
    of the process see the default dtype and the precision of products as they are here, while it lasts.
    """
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(PLAIN)
        yield


class Plain:
    """Settings that all threads of the process share: the first call changes them, and the last one to end restores."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.calls = 0
        self.before = ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.calls:
                self.before.enter_context(exact_products())
                self.before.callback(torch.set_default_dtype, torch.get_default_dtype())
                torch.set_default_dtype(torch.float32)
            self.calls += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.calls -= 1
            if not self.calls:
                self.before.close()


@contextmanager
def exact_products() -> Generator[None]:
    """Products of float32 matrices in float32."""
    on_cpu = getattr(torch.backends.mkldnn, "matmul", None)
    if on_cpu is None:  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    backends = (torch.backends.cuda.matmul, on_cpu)
    found = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, value in zip(backends, found, strict=True):
            backend.fp32_precision = "none"  # follows torch.backends.fp32_precision, as it may have done before
            if backend.fp32_precision != value:
                backend.fp32_precision = value


PLAIN = Plain()
