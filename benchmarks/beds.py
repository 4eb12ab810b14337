"""The tasks that benchmarks/research.py measures on: a real one, the bundled one, and variations of both.


A trial never shows labels to a method: they serve to make teachers (which had labels in real life, too) and to score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from benchmarks.sources import OUTSIDE_TASKS, Data, data_of
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.linear.probe import linear_probe

WORDS = 1005
SETTINGS = ("all", "novel")


@dataclass(frozen=True)
class Teacher:
    """The fine-tuned weak model: logits of any images as s x_f t_f', in its own embedding space.

    Attributes:
        images: embeddings of all images, unit-norm.
        head: what they are multiplied with, C x width, the scale included.
        texts: its text embeddings of the vocabulary, where it has a text tower; the weak model's for a head.
        open: whether a method may look at `images`, `head` and `texts`; logits alone otherwise.
        masked: the classes that it gives -100, if any.
    """

    images: Tensor
    head: Tensor
    texts: Tensor | None
    open: bool = True
    masked: Tensor | None = None

    def logits(self, rows: Tensor) -> Tensor:
        logits = self.images[rows] @ self.head.T
        return logits if self.masked is None else logits.masked_fill(self.masked, -100.0)


@dataclass(frozen=True)
class Trial:
    """One seed of one bed in one setting.

    Attributes:
        weak, strong: embeddings of all images and the vocabulary, the C classes first.
        unlabelled, test: rows of the images.
        labels: of all images.
        base: whether a class has unlabelled images; all true in the all-class setting.
    """

    weak: Embeddings
    strong: Embeddings
    teacher: Teacher
    unlabelled: Tensor
    test: Tensor
    labels: Tensor
    base: Tensor

    @property
    def classes(self) -> int:
        return len(self.base)

    def model(self, name: str, rows: Tensor) -> Embeddings:
        model: Embeddings = getattr(self, name)
        return Embeddings(model.images[rows], model.texts, model.logit_scale)

    def score(self, logits: Tensor) -> dict[str, float]:
        """Top-1 in percent on the test images, among all classes.

        With base classes, also base and novel, each among its own classes ("base, all" and "novel, all" among all), and
        their harmonic mean HM.
        """
        labels = self.labels[self.test]
        right = logits.argmax(-1) == labels
        among_all = {"all": 100 * right.double().mean().item()}
        if bool(self.base.all()):
            return among_all
        parts = {}
        for name, classes in (("base", self.base), ("novel", ~self.base)):
            rows = classes[labels]
            kept = logits[rows].masked_fill(~classes, -torch.inf)
            parts[name] = 100 * (kept.argmax(-1) == labels[rows]).double().mean().item()
            among_all[f"{name}, all"] = 100 * right[rows].double().mean().item()
        return (
            among_all | parts | {"HM": 2 * parts["base"] * parts["novel"] / max(parts["base"] + parts["novel"], 1e-9)}
        )


@dataclass(frozen=True)
class Bed:
    """A recipe for trials.

    Attributes:
        source: "real", "demo", a folder of handwriting.py, or a file of outside.py.
        weak, strong: which of the data's models play these roles.
        teacher: "finetuned", or "probe": a linear probe of the weak model.
        shots: labels per class that the probe gets (None: all of the unlabelled images').
        wrong: the share of those labels that are drawn at random.
        skipped: with shots, labels per class that are passed over before them.
        half: 0 or 1: the teacher knows one half of the classes alone, drawn at random; with shots, the probe gets
            labels of these.
        masked: whether it gives the others -100; they are just not in its labels otherwise.
        permuted: whether the classes are mixed up in the probe's labels.
        images: most unlabelled images.
        subset: classes drawn from the data's, all of them if None.
        seen: in base-to-novel, how many classes have images; half of them if None.
        misnamed: the share of classes that zero-shot models look for under the name of something else.
        open: whether methods may see the teacher's embeddings.
    """

    source: str
    weak: str = "weak"
    strong: str = "strong"
    teacher: str = "finetuned"
    shots: int | None = None
    skipped: int = 0
    half: int | None = None
    masked: bool = False
    wrong: float = 0.0
    permuted: bool = False
    images: int | None = None
    subset: int | None = None
    seen: int | None = None
    misnamed: float = 0.0
    open: bool = True

    def trial(self, seed: int, setting: str) -> Trial:
        data = data_of(self.source)
        assert data is not None
        generator = torch.Generator().manual_seed(seed)
        data = choose_classes(data, self.subset, generator)
        order = torch.randperm(len(data.labels), generator=generator)
        half = len(order) // 2
        return self.split(data, (order[:half], order[half:]), generator, seed, setting)

    def split(
        self, data: Data, rows: tuple[Tensor, Tensor], generator: torch.Generator, seed: int, setting: str
    ) -> Trial:
        """The trial of some unlabelled and some test rows."""
        unlabelled, test = rows
        classes = int(data.labels.max()) + 1
        base = torch.ones(classes, dtype=torch.bool)
        if setting == "novel":
            base[torch.randperm(classes, generator=generator)[self.seen or (classes + 1) // 2 :]] = False
        words = torch.randperm(len(data.tensors["weak.aux"]), generator=generator)[:WORDS]
        if any(f"{name}.aux" not in data.tensors for name in (self.weak, self.strong)):
            words = words[:0]
        weak, strong = (data.model(name, words) for name in (self.weak, self.strong))
        if self.misnamed:
            weak, strong = misname((weak, strong), classes, round(self.misnamed * classes), generator)
        unlabelled = unlabelled[base[data.labels[unlabelled]]]
        teacher = self.make_teacher(data, weak, unlabelled, seed, words)
        return Trial(weak, strong, teacher, unlabelled[: self.images], test, data.labels, base)

    def make_teacher(self, data: Data, weak: Embeddings, rows: Tensor, seed: int, words: Tensor) -> Teacher:
        generator = torch.Generator().manual_seed(1000 + seed)
        classes = int(data.labels.max()) + 1
        labels = data.labels.clone()
        present = labels[rows].unique()
        if self.permuted:
            mixed = torch.arange(classes)
            mixed[present] = present.roll(1)
            labels = mixed[labels]
        noise = torch.rand(len(labels), generator=generator) < self.wrong
        labels[noise] = present[torch.randint(len(present), (int(noise.sum()),), generator=generator)]
        known = present
        if self.half is not None:
            known = present[torch.randperm(len(present), generator=generator)][self.half :: 2]
        masked = ~torch.isin(torch.arange(classes), known) if self.masked else None
        if self.teacher == "finetuned":
            tensors, scale = data.tensors, data.scales["finetuned"]
            aux = tensors.get("finetuned.aux")
            text = F.normalize(tensors["finetuned.text"], dim=-1)
            texts = text if aux is None else torch.cat([text, F.normalize(aux[words], dim=-1)])
            return Teacher(F.normalize(tensors["finetuned.images"], dim=-1), scale * text, texts, self.open, masked)
        if self.shots is not None:
            true = data.labels[rows]
            rows = torch.cat([rows[true == c][self.skipped :][: self.shots] for c in known])
        labelled = Embeddings(weak.images[rows], weak.texts, weak.logit_scale)
        head = linear_probe(labelled, labels[rows], classes, seed)
        return Teacher(weak.unit_images(), head, weak.unit_texts(), self.open, masked)


def choose_classes(data: Data, subset: int | None, generator: torch.Generator) -> Data:
    """A random part of the classes; the others are no part of the task, nor of the vocabulary."""
    if subset is None:
        return data
    classes = int(data.labels.max()) + 1
    chosen = torch.randperm(classes, generator=generator)[:subset]
    place = torch.full((classes,), -1)
    place[chosen] = torch.arange(subset)
    rows = place[data.labels] >= 0
    tensors = {
        name: value[rows] if name.endswith("images") else value[chosen] if name.endswith("text") else value
        for name, value in data.tensors.items()
    }
    return Data(tensors, data.scales, place[data.labels][rows])


def misname(
    models: tuple[Embeddings, Embeddings], classes: int, count: int, generator: torch.Generator
) -> list[Embeddings]:
    """So many classes, at random, change their names with as many auxiliary words, the same ones for all models."""
    chosen = torch.randperm(classes, generator=generator)[:count]
    words = classes + torch.randperm(len(models[0].texts) - classes, generator=generator)[:count]
    order = torch.arange(len(models[0].texts))
    order[chosen], order[words] = words, chosen
    return [Embeddings(model.images, model.texts[order], model.logit_scale) for model in models]


BEDS: dict[str, Bed] = {
    "real": Bed("real"),
    "real, 8 classes": Bed("real", subset=8),
    "real, 100 images": Bed("real", images=100),
    "real, 40 images": Bed("real", images=40),
    "RN50 probe, all labels": Bed("real", teacher="probe"),
    "RN50 probe, 16 shots": Bed("real", teacher="probe", shots=16),
    "RN50 probe, 4 shots": Bed("real", teacher="probe", shots=4),
    "RN50 probe, 1 shot": Bed("real", teacher="probe", shots=1),
    "B/32 probe to RN50": Bed("real", weak="strong", strong="weak", teacher="probe", shots=16),
    "B/32 probe to RemoteCLIP RN50": Bed("real", weak="strong", strong="finetuned", teacher="probe", shots=16),
    "B/32 probe to RemoteCLIP RN50, 1 shot": Bed("real", weak="strong", strong="finetuned", teacher="probe", shots=1),
    "demo": Bed("demo"),
    "demo probe, 16 shots": Bed("demo", teacher="probe", shots=16),
    "demo probe, 4 shots": Bed("demo", teacher="probe", shots=4),
}
HELD: dict[str, Bed] = {
    "typefaces probe, all labels": Bed("typefaces", teacher="probe"),
    "typefaces probe, 16 shots": Bed("typefaces", teacher="probe", shots=16),
    "typefaces probe, 4 shots": Bed("typefaces", teacher="probe", shots=4),
    "typefaces probe, 1 shot": Bed("typefaces", teacher="probe", shots=1),
    "typefaces probe, 16 shots, 500 images": Bed("typefaces", teacher="probe", shots=16, images=500),
    "typefaces, half the labels wrong": Bed("typefaces", teacher="probe", wrong=0.5),
    "typefaces, all labels random": Bed("typefaces", teacher="probe", wrong=1.0),
    "typefaces, classes permuted": Bed("typefaces", teacher="probe", permuted=True),
    "mnist, the demo's teacher": Bed("mnist"),
    "mnist probe, 16 shots": Bed("mnist", teacher="probe", shots=16),
    "mnist probe, 4 shots": Bed("mnist", teacher="probe", shots=4),
    "mnist, all labels random": Bed("mnist", teacher="probe", wrong=1.0),
    "mnist, classes permuted": Bed("mnist", teacher="probe", permuted=True),
}
"""Images of characters that came last: most rules were made before."""
OUTSIDE_BEDS: dict[str, Bed] = {
    f"{source}, {said}": replace(bed, source=source)
    for source in OUTSIDE_TASKS
    for said, bed in {
        "probe, all labels": Bed("", teacher="probe"),
        "probe, 16 shots": Bed("", teacher="probe", shots=16),
        "probe, 4 shots": Bed("", teacher="probe", shots=4),
        "probe, 1 shot": Bed("", teacher="probe", shots=1),
        "Lite2 probe to Lite0, 16 shots": Bed("", weak="strong", strong="weak", teacher="probe", shots=16),
        "probe, 16 shots, 300 images": Bed("", teacher="probe", shots=16, images=300),
        "probe of half the classes, 16 shots": Bed("", teacher="probe", shots=16, half=0),
        "half the labels wrong": Bed("", teacher="probe", wrong=0.5),
        "all labels random": Bed("", teacher="probe", wrong=1.0),
        "classes permuted": Bed("", teacher="probe", permuted=True),
    }.items()
}
"""Photographs of objects and clothes, and models, that had no part in any choice."""
HARD: dict[str, Bed] = {
    f"{said}, {names}": replace(bed, misnamed=share)
    for said, bed in {
        "all labels": Bed("small", subset=20, teacher="probe"),
        "16 shots": Bed("small", subset=20, teacher="probe", shots=16),
        "4 shots": Bed("small", subset=20, teacher="probe", shots=4),
        "half the labels wrong": Bed("small", subset=20, teacher="probe", wrong=0.5),
        "all labels random": Bed("small", subset=20, teacher="probe", wrong=1.0),
        "classes permuted": Bed("small", subset=20, teacher="probe", permuted=True),
    }.items()
    for names, share in {"right names": 0.0, "a third of the names wrong": 1 / 3}.items()
}
"""Small letters and digits, which zero-shot models hardly know."""
PARTIAL: dict[str, Bed] = {
    f"{said}, {known}": replace(bed, half=0, masked=masked)
    for said, bed in {
        "real": Bed("real"),
        "RN50 probe, 16 shots": Bed("real", teacher="probe", shots=16),
        "RN50 probe, 1 shot": Bed("real", teacher="probe", shots=1),
        "B/32 probe to RN50": Bed("real", weak="strong", strong="weak", teacher="probe", shots=16),
        "demo": Bed("demo"),
        "demo probe, 16 shots": Bed("demo", teacher="probe", shots=16),
        "typefaces probe, 16 shots": Bed("typefaces", teacher="probe", shots=16),
        "mnist probe, 16 shots": Bed("mnist", teacher="probe", shots=16),
        "small letters probe, 16 shots": Bed("small", subset=20, teacher="probe", shots=16),
    }.items()
    for known, masked in {"half of the classes": False, "the others masked": True}.items()
    if masked or bed.teacher == "probe"
}
"""Teachers that know one half of the classes, where images show all of them."""
BAD: dict[str, Bed] = {
    "half the labels wrong": Bed("real", teacher="probe", wrong=0.5),
    "all labels random": Bed("real", teacher="probe", wrong=1.0),
    "classes permuted": Bed("real", teacher="probe", permuted=True),
    "all labels random, 60 images": Bed("real", teacher="probe", wrong=1.0, images=60),
    "classes permuted, 60 images": Bed("real", teacher="probe", permuted=True, images=60),
    "1 shot, half wrong": Bed("real", teacher="probe", shots=1, wrong=0.5),
    "1 shot, random": Bed("real", teacher="probe", shots=1, wrong=1.0),
    "demo, all labels random": Bed("demo", teacher="probe", wrong=1.0),
    "demo, classes permuted": Bed("demo", teacher="probe", permuted=True),
}
"""Teachers that are no good."""
NAMES: dict[str, Bed] = {
    f"{name}, {part} of the names wrong": replace((BEDS | BAD)[name], misnamed=share)
    for names, parts in (
        (("real", "RN50 probe, 16 shots", "demo", "demo probe, 16 shots"), {"half": 0.5, "all": 1.0}),
        (("classes permuted", "demo, classes permuted"), {"a fifth": 0.2, "half": 0.5}),
    )
    for name in names
    for part, share in parts.items()
}
"""Names that say nothing of some classes."""
FEW: dict[str, Bed] = {
    f"{name}, {seen} of {classes}": replace((BEDS | BAD)[name], subset=classes, seen=seen)
    for name in ("real", "RN50 probe, 16 shots", "demo", "demo probe, 16 shots", "half the labels wrong")
    for seen, classes in ((2, 6), (3, 6), (2, 10), (3, 10), (4, 10))
}
"""Few classes with images."""
