"""Refinement (TransMiter+, paper Sec. 3.4): a few labels through the transferred adapter, the strong model frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from transmiter_cli.method.distillation import Progress, cosine_with_warmup, require_trained

Module = TypeVar("Module", bound=nn.Module)
Forward = Callable[[Module, Tensor], Tensor]
"""The class logits that a module gives for chosen rows of the labelled images."""


@dataclass(frozen=True)
class RefineSettings:
    """How a transferred correction is refined.

    Attributes:
        epochs: most passes over the labelled images; the number taken is chosen by cross-validation.
        learning_rate: AdamW's.
        folds: of the cross-validation, on the labelled images alone; two at least.
        seed: decides folds and batches.

    Raises:
        ValueError: if there are fewer folds.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    warmup: float = 0.05
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"cross-validation needs two folds at least, not {self.folds}.")


def refine_correction(
    module: Module,
    forward: Forward[Module],
    labels: Int[Tensor, " images"],
    settings: RefineSettings,
    progress: Progress | None = None,
) -> tuple[Module, int]:
    """Minimise cross-entropy on labelled images, starting from the transferred correction.

    The number of epochs has the lowest cross-validated cross-entropy, zero among the candidates, so that a
    refinement that does not help is not taken; then all labelled images are trained on. Nothing else is looked at.
    Labels of one class alone change nothing.

    Args:
        module: the transferred correction; it is not changed.
        forward: the class logits that a module gives for chosen rows of the labelled images.
        labels: their class indices.
        settings: the recipe.
        progress: told after each epoch of each fold.

    Returns:
        The refined correction, and the number of epochs it took: 0 where none helped.

    Raises:
        InvalidTensorError: if the training on all labelled images diverges.
    """
    if len(labels.unique()) < 2:
        return module, 0
    parts = stratified_folds(labels, settings.folds, settings.seed)
    losses = torch.zeros(settings.epochs + 1, device=labels.device)
    everything = torch.arange(len(labels), device=labels.device)
    done, total = 0, len(parts) * (settings.epochs + 1)
    for held_out in parts:
        rows = everything[~torch.isin(everything, held_out)]
        for epoch, state in enumerate(trajectory(module, forward, labels, rows, settings)):
            with torch.no_grad():
                losses[epoch] += F.cross_entropy(forward(state, held_out), labels[held_out], reduction="sum")
            done += 1
            if progress:
                progress(done, total)
    best = int(losses.nan_to_num(nan=torch.inf).argmin())
    refined = next(islice(trajectory(module, forward, labels, everything, settings), best, None))
    require_trained(refined)
    return refined, best


def trajectory(
    module: Module,
    forward: Forward[Module],
    labels: Int[Tensor, " images"],
    rows: Int[Tensor, " rows"],
    settings: RefineSettings,
) -> Iterator[Module]:
    """A copy of the module before training and after each epoch on the chosen rows; the same object each time."""
    trained = copy.deepcopy(module)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_with_warmup(settings.epochs, settings.warmup))
    generator = torch.Generator().manual_seed(settings.seed)
    yield trained
    for _ in range(settings.epochs):
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        for batch in order.split(settings.batch_size):
            loss = F.cross_entropy(forward(trained, batch), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        yield trained


def stratified_folds(labels: Int[Tensor, " images"], folds: int, seed: int) -> list[Int[Tensor, " rows"]]:
    """Rows of at most `folds` disjoint parts with equal shares of each class; together they are all rows.

    Each class is dealt out in turn, in a random order, where the class before it left off, so that classes
    of a single image are spread over the parts, too.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    dealt = shuffled[labels.cpu()[shuffled].argsort(stable=True)].to(labels.device)
    return [part for start in range(folds) if len(part := dealt[start::folds])]
