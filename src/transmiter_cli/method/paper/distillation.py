"""Knowledge extraction (paper Sec. 3.2): distil the fine-tuned weak model into an adapter of its zero-shot logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError, check_teacher
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.paper.basis import compact_basis
from transmiter_cli.method.paper.cuda_graph import recorded
from transmiter_cli.method.paper.learned_basis import LearnedBasis
from transmiter_cli.method.settings import FitSettings

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def distillation_loss(
    student: Float[Tensor, "rows classes"], teacher: Float[Tensor, "rows classes"], temperature: float
) -> Float[Tensor, ""]:
    """KL( softmax(teacher / t) || softmax(student) ) * t, the mean over rows (paper Eq. 4)."""
    target = F.log_softmax(teacher / temperature, dim=-1)
    return temperature * F.kl_div(F.log_softmax(student, dim=-1), target, reduction="batchmean", log_target=True)


def new_adapter(texts: Float[Tensor, "vocabulary width"], classes: int, settings: FitSettings) -> Adapter:
    """An adapter that changes nothing yet."""
    paper = settings.basis == "paper"
    basis = torch.eye(len(texts), dtype=torch.float32, device=texts.device) if paper else compact_basis(texts)
    return Adapter(basis, classes, settings.seed)


@torch.inference_mode(False)
@torch.enable_grad()
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
            classes than vocabulary entries, values are not finite, all texts are the same, or the training diverges.
    """
    check_teacher(weak, finetuned_logits)
    adapter = new_adapter(weak.texts, finetuned_logits.shape[1], settings)
    train(adapter, weak, finetuned_logits.detach(), settings, schedule_batches(len(weak), settings), progress)
    require_trained(adapter)
    return adapter.eval()


def train(
    adapter: Adapter,
    weak: Embeddings,
    finetuned_logits: Float[Tensor, "images classes"],
    settings: FitSettings,
    batches: Sequence[Batch],
    progress: Progress | None = None,
) -> None:
    """Take one step per batch. Nothing is read back from the device, so the host runs ahead of it.

    Logits are formed of a batch's embeddings and exist for that batch only.
    """
    device = weak.texts.device
    learned = LearnedBasis(adapter.basis) if settings.basis == "paper" else None
    optimizer = new_optimizer(adapter, learned, settings)
    factor = cosine_with_warmup(len(batches), settings.warmup)
    noise = torch.Generator(device).manual_seed(settings.seed)
    classifier = weak.classifier().T

    def step(rows: Int[Tensor, " rows"], noisy: bool) -> None:
        logits = weak.unit_images(rows) @ classifier
        if noisy:
            logits = add_noise(logits, settings.noise, noise)
        with mixed_precision(device):
            student = adapter(logits)
        distillation_loss(student, finetuned_logits[rows].float(), settings.temperature).backward()
        if learned:
            learned.pull()
        optimizer.step()
        if learned:
            learned.turn()
        optimizer.zero_grad(set_to_none=True)

    with recorded(step, device, noise) as take:
        for number, batch in enumerate(batches):
            set_learning_rate(optimizer, settings.learning_rate * factor(number))
            take(batch.rows.to(device, non_blocking=True), batch.noisy)
            if progress:
                progress(number + 1, len(batches))
    if learned:
        learned.freeze()


def new_optimizer(adapter: Adapter, learned: LearnedBasis | None, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW over the correction and, where it is learned, the step of the basis, which is 0 before each update: no
    weight decay pulls it.
    """
    parameters = [*adapter.correction.parameters(), *([learned.step] if learned else [])]
    device = adapter.basis.device
    on_cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type in ("cpu", "cuda"),
        capturable=on_cuda,
    )
    if on_cuda:  # a number would be recorded with the step
        optimizer.param_groups[0]["lr"] = torch.zeros((), dtype=torch.float32, device=device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def mixed_precision(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 on CUDA devices that have it; float32 elsewhere.

    Logits and their row statistics are float32 everywhere: they are formed outside, or by operations that autocast
    leaves alone.
    """
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=able)


def require_trained(module: nn.Module) -> None:
    """Raise InvalidTensorError if training left parameters that are not finite."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters()):
        raise InvalidTensorError(
            "the training diverged: its parameters are no longer finite.", "a smaller --lr (learning_rate in Python)"
        )


class Batch(NamedTuple):
    """One step: which images, and whether their logits get noise."""

    rows: Int[Tensor, " rows"]
    noisy: bool


def schedule_batches(images: int, settings: FitSettings) -> list[Batch]:
    """Every step of the training: each epoch visits all images once, in an order of its own.

    Drawn on the CPU, so that it does not depend on the device; the rows of an epoch share one tensor.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rows = [
        part
        for _ in range(settings.epochs)
        for part in torch.randperm(images, generator=generator).split(settings.batch_size)
    ]
    noisy = torch.rand(len(rows), generator=generator, dtype=torch.float32) < settings.noise_rate
    return [Batch(part, wanted and settings.noise > 0) for part, wanted in zip(rows, noisy.tolist(), strict=True)]


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
