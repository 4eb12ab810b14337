"""Knowledge extraction (paper Sec. 3.2): distil the fine-tuned weak model into an adapter of its zero-shot twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transmiter_cli.method.adapter import Adapter, freeze_basis, learn_basis
from transmiter_cli.method.basis import compact_basis
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError, require_finite

Basis = Literal["compact", "paper"]
Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True)
class FitSettings:
    """How the adapter is distilled; the defaults are the published recipe.

    Attributes:
        basis: "compact" (D <= d fixed directions) or "paper" (a square learned orthogonal W).
        temperature: the teacher's logits are divided by it.
        noise: deviation of the Gaussian noise on a row of logits, as a fraction of the row's own.
        noise_rate: the share of batches that get noise.
        warmup: the share of steps in which the learning rate rises.
        seed: decides initial weights, batches and noise.
    """

    basis: Basis = "compact"
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    temperature: float = 0.5
    noise: float = 0.5
    noise_rate: float = 0.5
    warmup: float = 0.05
    seed: int = 0


def distillation_loss(
    student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], temperature: float
) -> Float[Tensor, ""]:
    """KL( softmax(teacher / t) || softmax(student) ) * t, the mean over rows (paper Eq. 4)."""
    target = F.log_softmax(teacher / temperature, dim=-1)
    return temperature * F.kl_div(F.log_softmax(student, dim=-1), target, reduction="batchmean", log_target=True)


def new_adapter(texts: Float[Tensor, "vocabulary width"], classes: int, settings: FitSettings) -> Adapter:
    """An adapter that changes nothing yet, its weights drawn from the seed and independent of the device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)  # the CPU's alone: a user's CUDA generator is not ours
        square = settings.basis == "paper"
        basis = torch.eye(len(texts)) if square else compact_basis(texts).cpu()
        adapter = Adapter(basis, classes).to(texts.device)
    if square:
        learn_basis(adapter)
    return adapter


def fit_adapter(
    weak: Embeddings,
    finetuned_logits: Float[Tensor, "images classes"],
    settings: FitSettings,
    progress: Progress | None = None,
) -> Adapter:
    """Train an adapter that turns the weak model's zero-shot logits into the fine-tuned weak model's.

    Labels are not used, and the strong model is not needed.

    Args:
        weak: the zero-shot weak model on unlabelled images and the whole vocabulary.
        finetuned_logits: the fine-tuned weak model on the same images and the C task classes.
        settings: the recipe.
        progress: told after each step.

    Raises:
        InvalidTensorError: if rows do not match, there are fewer than two images, fewer than two classes, more
            classes than vocabulary entries, or values are not finite.
    """
    check_teacher(weak, finetuned_logits)
    if settings.basis not in ("compact", "paper"):
        raise ValueError(f"the basis is 'compact' or 'paper', not {settings.basis!r}.")
    adapter = new_adapter(weak.texts, finetuned_logits.shape[1], settings)
    trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    steps = settings.epochs * math.ceil(len(weak) / settings.batch_size)
    fused = weak.images.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_with_warmup(steps, settings.warmup))
    chance = torch.Generator().manual_seed(settings.seed)
    noise = torch.Generator(weak.images.device).manual_seed(settings.seed)
    classifier = weak.logit_scale * weak.unit_texts().T
    adapter.train()
    for step, rows in enumerate(batches(len(weak), settings, chance)):
        rows = rows.to(weak.images.device, non_blocking=True)
        logits = weak.unit_images(rows) @ classifier
        if settings.noise and torch.rand((), generator=chance) < settings.noise_rate:
            logits = add_noise(logits, settings.noise, noise)
        loss = distillation_loss(adapter(logits), finetuned_logits[rows].float(), settings.temperature)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress:
            progress(step + 1, steps)
    freeze_basis(adapter)
    require_trained(adapter)
    return adapter.eval()


def require_trained(module: nn.Module) -> None:
    """Raise InvalidTensorError if training left parameters that are not finite."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters()):
        raise InvalidTensorError("the training diverged: its parameters are no longer finite.", "a smaller --lr")


def batches(images: int, settings: FitSettings, generator: torch.Generator) -> list[Int[Tensor, " rows"]]:
    """Row indices of every step: each epoch visits all images once, in an order of its own."""
    return [
        rows
        for _ in range(settings.epochs)
        for rows in torch.randperm(images, generator=generator).split(settings.batch_size)
    ]


def add_noise(
    logits: Float[Tensor, "rows vocabulary"], sigma: float, generator: torch.Generator
) -> Float[Tensor, "rows vocabulary"]:
    """Add Gaussian noise of `sigma` times each row's own deviation (paper Sec. 3.2)."""
    draw = torch.randn(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    return logits + sigma * logits.std(dim=-1, keepdim=True) * draw


def cosine_with_warmup(steps: int, warmup: float) -> Callable[[int], float]:
    """The learning rate's factor at each step: a linear rise, then half a cosine down to zero."""
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return factor


def check_teacher(weak: Embeddings, finetuned_logits: Float[Tensor, "images classes"]) -> None:
    """Raise InvalidTensorError unless the fine-tuned logits fit the weak model's embeddings."""
    if finetuned_logits.ndim != 2 or len(finetuned_logits) != len(weak):
        shape = tuple(finetuned_logits.shape)
        raise InvalidTensorError(f"the fine-tuned logits have shape {shape}, but there are {len(weak)} images.")
    if len(weak) < 2:
        raise InvalidTensorError(f"at least two images are needed, got {len(weak)}.")
    classes = finetuned_logits.shape[1]
    if classes < 2:
        raise InvalidTensorError(f"at least two classes are needed, got {classes}.")
    if classes > len(weak.texts):
        raise InvalidTensorError(f"{classes} classes do not fit a vocabulary of {len(weak.texts)} entries.")
    require_finite("the fine-tuned logits", finetuned_logits)
