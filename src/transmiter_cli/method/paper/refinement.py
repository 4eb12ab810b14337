"""Refinement (TransMiter+, paper Sec. 3.4): a few labels through the transferred adapter, the strong model frozen."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings, block_rows
from transmiter_cli.method.folds import stratified_folds
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.paper.distillation import Progress, cosine_with_warmup, require_trained
from transmiter_cli.method.per_image import computed_zero_shot_logits
from transmiter_cli.method.settings import RefineSettings


@torch.inference_mode(False)
@torch.enable_grad()
def refine_adapter(
    adapter: Adapter,
    labelled: Embeddings,
    labels: Int[Tensor, " images"],
    settings: RefineSettings,
    progress: Progress | None = None,
) -> tuple[Adapter, int]:
    """Minimise cross-entropy on labelled images, starting from the transferred adapter.

    The number of epochs has the lowest cross-validated cross-entropy, zero among the candidates, so that a
    refinement that does not help is not taken; then all labelled images are trained on. Nothing else is looked at.
    Labels of one class alone change nothing.

    Args:
        adapter: the transferred one; it is not changed.
        labelled: the strong model on labelled images.
        labels: their class indices.
        settings: the recipe.
        progress: told after each epoch of each fold.

    Returns:
        The refined adapter, and the number of epochs it took: 0 where none helped.

    Raises:
        InvalidTensorError: if the training on all labelled images diverges.
    """
    if len(labels.unique()) < 2:
        return adapter, 0
    parts = stratified_folds(labels, settings.folds, settings.seed)
    losses = torch.zeros(settings.epochs + 1, dtype=torch.float32, device=labels.device)
    everything = torch.arange(len(labels), device=labels.device)
    done, total = 0, len(parts) * (settings.epochs + 1)
    for held_out in parts:
        rows = everything[~torch.isin(everything, held_out)]
        for epoch, state in enumerate(trajectory(adapter, labelled, labels, rows, settings)):
            losses[epoch] += total_loss(state, labelled, labels, held_out)
            done += 1
            if progress:
                progress(done, total)
    best = int(losses.nan_to_num(nan=torch.inf).argmin())
    refined = next(islice(trajectory(adapter, labelled, labels, everything, settings), best, None))
    require_trained(refined)
    return refined, best


def trajectory(
    adapter: Adapter,
    labelled: Embeddings,
    labels: Int[Tensor, " images"],
    rows: Int[Tensor, " rows"],
    settings: RefineSettings,
) -> Iterator[Adapter]:
    """A copy of the adapter before training and after each epoch on the chosen rows; the same object each time."""
    trained = copy.deepcopy(adapter)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_with_warmup(settings.epochs, settings.warmup))
    generator = torch.Generator().manual_seed(settings.seed)
    logits = computed_zero_shot_logits(labelled, len(labelled.texts))
    yield trained
    for _ in range(settings.epochs):
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        for batch in order.split(settings.batch_size):
            loss = F.cross_entropy(trained(logits[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        yield trained


@torch.no_grad()
def total_loss(
    adapter: Adapter, labelled: Embeddings, labels: Int[Tensor, " images"], rows: Int[Tensor, " rows"]
) -> Float[Tensor, ""]:
    """The sum of the cross-entropies of the chosen rows, a block of logits at a time."""
    logits = computed_zero_shot_logits(labelled, len(labelled.texts))
    losses = [
        F.cross_entropy(adapter(logits[block]), labels[block], reduction="sum")
        for block in rows.split(block_rows(len(labelled.texts)))
    ]
    return torch.stack(losses).sum()
