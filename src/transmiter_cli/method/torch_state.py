"""What a caller may have changed for all of torch."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch


@contextmanager
def plain_torch() -> Generator[None]:
    """No default device, no autocast and exact products, whatever a caller has set; also a decorator, `@plain_torch()`.

    Tensors are on the CPU where no device is named: random numbers are drawn there, so that they are the same
    everywhere, and moved to the inputs' device. Products of float32 are neither cast by `torch.autocast` nor computed
    in TF32 or bfloat16, with which solves lose what little the smallest directions are known by. The precision of
    products, unlike the others, is one for all threads. A default dtype is, too, and left alone: all tensors here name
    their own.
    """
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(EXACT)
        yield


class Exact:
    """Exact products in all threads, from the first call's beginning to the end of the last one."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.calls = 0
        self.before = ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.calls:
                self.before.enter_context(exact_products())
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


EXACT = Exact()
if hasattr(os, "register_at_fork"):  # another thread may hold the lock; Windows forks nothing
    os.register_at_fork(after_in_child=lambda: EXACT.__init__())
