"""Vocabularies of 1,000, 5,000 and 21,000 entries, nearly all of them classes: how the cost grows."""

from __future__ import annotations

import time

from benchmarks.measure import Row, in_new_process, peak, random_rows

import transmiter_cli as tm

IMAGES, WIDTH, STRONG, WORDS, STEPS = 4096, 512, 768, 200, 8


def measure(vocabulary: int) -> Row:
    """fit, transfer and adapted answers for one vocabulary; C = M - 200."""
    classes = vocabulary - WORDS
    weak, strong = (
        tm.Embeddings(random_rows(IMAGES, width, width), random_rows(vocabulary, width, width + 1), 100.0)
        for width in (WIDTH, STRONG)
    )
    part = tm.Embeddings(weak.images[: STEPS * 128], weak.texts, 100.0)
    teacher = 100 * part.images @ random_rows(classes, WIDTH, 3).T
    row: Row = {"M": vocabulary, "C": classes}
    with peak() as found:
        began = time.perf_counter()
        fitted = tm.fit(part, teacher, epochs=1)
        row["fit: s/1024 images"] = time.perf_counter() - began
        row["D"] = len(fitted.correction.basis)  # type: ignore[union-attr]
        began = time.perf_counter()
        moved = tm.transfer(fitted, weak, strong)
        row["transfer: s"] = time.perf_counter() - began
        began = time.perf_counter()
        moved.class_logits(strong.images[:2048])
        row["answers: s/2048 images"] = time.perf_counter() - began
    row["peak MiB"] = found[0]
    row["M x M would be MiB"] = vocabulary**2 * 4 / 2**20
    row["artefact MiB"] = sum(t.numel() for t in (*moved.correction.state_dict().values(), moved.texts)) * 4 / 2**20
    return row


def bench(quick: bool) -> list[Row]:
    """A row per vocabulary, each in a process of its own."""
    return [in_new_process(measure, size) for size in ((1000, 2000) if quick else (1000, 5000, 21_000))]
