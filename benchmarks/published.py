"""The published recipe, step by step as the paper has it (Sec. 3.2 and 3.3): the baseline of the benchmarks.

A square orthogonal W of M x M is learned through a matrix exponential; a DataLoader yields batches of 128; the logits
of each batch are computed anew; the solve forms the logits of both models and decomposes an M x M matrix.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from torch.utils.data import DataLoader, TensorDataset

BATCH = 128
REG = 500.0
BLOCK = 1024


class PublishedAdapter(nn.Module):
    """z_hat = std(z) (h + g(h)) W + mean(z), h = z~ W', for M logits z."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.rotation = nn.Linear(vocabulary, vocabulary, bias=False)
        nn.init.eye_(self.rotation.weight)
        orthogonal(self.rotation, orthogonal_map="matrix_exp")
        last = nn.Linear(4 * vocabulary, vocabulary)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(
            nn.LayerNorm(vocabulary), nn.Linear(vocabulary, 4 * vocabulary), nn.GELU(), last
        )

    def forward(self, logits: Tensor, rotation: Tensor | None = None) -> Tensor:
        """All M adapted logits; `rotation` takes W's place on another model."""
        weight = self.rotation.weight if rotation is None else rotation
        mean, std = logits.mean(-1, keepdim=True), logits.std(-1, keepdim=True)
        hidden = (logits - mean) / (std + 1e-6) @ weight.T
        return std * ((hidden + self.correction(hidden)) @ weight) + mean


def published_fit(
    images: Tensor, texts: Tensor, scale: float, teacher: Tensor, epochs: int = 10, seed: int = 0
) -> PublishedAdapter:
    """Distil the teacher's logits (N x C) into an adapter of the zero-shot logits, on the texts' device."""
    torch.manual_seed(seed)
    adapter = PublishedAdapter(len(texts)).to(texts.device)
    loader = DataLoader(TensorDataset(images.cpu(), teacher.cpu()), BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = epochs * len(loader)
    rise = max(1, round(0.05 * steps))

    def factor(step: int) -> float:
        after = (step - rise) / max(1, steps - rise)
        return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * after))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(epochs):
        for loaded in loader:
            batch, target = (part.to(texts.device) for part in loaded)
            logits = scale * F.normalize(batch, dim=-1) @ F.normalize(texts, dim=-1).T
            if torch.rand(()) < 0.5:
                logits = logits + 0.5 * logits.std(-1, keepdim=True) * torch.randn_like(logits)
            student = adapter(logits)[:, : teacher.shape[1]]
            log_target = F.log_softmax(target / 0.5, dim=-1)
            loss = 0.5 * F.kl_div(F.log_softmax(student, -1), log_target, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return adapter


@torch.no_grad()
def published_solve(
    weak: tuple[Tensor, Tensor], strong: tuple[Tensor, Tensor], scale: float, rotation: Tensor, reg: float = REG
) -> Tensor:
    """W of the strong model, from images and texts of both: the logits of all images, in blocks of 1024 rows."""
    size = len(rotation)
    moment = torch.zeros_like(rotation)
    for start in range(0, len(weak[0]), BLOCK):
        hidden = []
        for images, texts in (strong, weak):
            rows = F.normalize(images[start : start + BLOCK], dim=-1)
            logits = scale * rows @ F.normalize(texts, dim=-1).T
            standard = (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-6)
            hidden.append(standard @ rotation.T)
        moment += hidden[0].T @ hidden[1]
    left, _, right = torch.svd(moment + reg * torch.eye(size, device=rotation.device))
    return (left @ right.T).T @ rotation
