"""Training steps as CUDA graphs: what a step launches is recorded once, and launched as one from then on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

Step = Callable[[Int[Tensor, " rows"], bool], object]
"""Takes the images of a batch, on the device, and whether their logits get noise."""
PLAIN_STEPS = 8
"""Steps of a kind before one is recorded, which takes about as long: a kind that is rarer is not worth it."""


@contextmanager
def recorded(step: Step, device: torch.device, noise: torch.Generator) -> Generator[Step]:
    """The same step, on CUDA recorded and replayed; elsewhere as it is.

    The hundred kernels of a step take microseconds each, and Python longer than that to launch each of them. A step
    must launch the same kernels on the same memory each time: it may keep no number on the host that changes, and
    wait for nothing.

    Args:
        step: told the images and whether there is noise; it does the same for each pair of their number and that.
        device: where it computes.
        noise: the generator of its random numbers.
    """
    if device.type != "cuda":
        yield step
        return
    before, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield Recorder(step, noise)
    before.wait_stream(stream)  # not after an error: what it trained is lost


@dataclass(frozen=True)
class Recording:
    """A recorded step, and the tensor that it reads the images of its batch from."""

    graph: torch.cuda.CUDAGraph
    rows: Int[Tensor, " rows"]


class Recorder:
    """A step that is recorded after PLAIN_STEPS of its kind, on the current stream.

    Args:
        step: the step.
        noise: the generator of its random numbers, which goes on where it was from replay to replay.
    """

    def __init__(self, step: Step, noise: torch.Generator) -> None:
        self.step = step
        self.noise = noise
        self.seen: Counter[tuple[int, bool]] = Counter()
        self.recordings: dict[tuple[int, bool], Recording] = {}

    def __call__(self, rows: Int[Tensor, " rows"], noisy: bool) -> None:
        """Take one step."""
        kind = (len(rows), noisy)
        self.seen[kind] += 1
        if self.seen[kind] <= PLAIN_STEPS:
            self.step(rows, noisy)
            return
        if kind not in self.recordings:
            self.recordings[kind] = self.record(rows.clone(), noisy)
        recording = self.recordings[kind]
        recording.rows.copy_(rows)
        recording.graph.replay()

    def record(self, rows: Int[Tensor, " rows"], noisy: bool) -> Recording:
        """Record a step, without taking it."""
        graph = torch.cuda.CUDAGraph()
        if torch.__version__ < "2.14":  # compared as versions; later ones see by themselves which generators are used
            graph.register_generator_state(self.noise)
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            self.step(rows, noisy)
        return Recording(graph, rows)
