"""Embeddings, logits and labels of one scene of a bench, from images or from the authors' feature files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.bench.spec import BASE_TO_NOVEL, BenchSpec, SceneKey
from transmiter_cli.embedding.choices import Decoding
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.feature_file import FeatureFile, read_feature_file
from transmiter_cli.embedding.sources import DataSpec, ImageSet, open_images
from transmiter_cli.embedding.storage.contents import place_of
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError, listing
from transmiter_cli.evaluation.protocols import coop_base
from transmiter_cli.files import canonical_json, digest, expanded, file_identity
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.task.finetuned import (
    PROBE,
    FinetunedModel,
    finetuned_digest,
    lasting_name,
    open_finetuned,
)
from transmiter_cli.task.head_file import FinetunedHead, probe_head
from transmiter_cli.task.logits_file import FinetunedLogits
from transmiter_cli.task.shots import choose_shots
from transmiter_cli.task.templates import choose_templates, read_templates
from transmiter_cli.task.vocabulary import auxiliary_words, build_vocabulary, class_names
from transmiter_cli.workflow.class_lists import read_map
from transmiter_cli.workflow.encoded import EncodedImages, as_teacher, encode, encode_same
from transmiter_cli.workflow.overlap import fingerprints


@dataclass(frozen=True)
class Part:
    """One split: the fine-tuned weak model with its zero-shot one, the strong model, and labels."""

    teacher: Teacher
    strong: Embeddings
    labels: Int[Tensor, " images"]


@dataclass(frozen=True)
class Material:
    """A scene's tensors.

    Attributes:
        base: the base classes; None in the plain protocol.
        among: the classes that may be answered; None for all.
    """

    vocabulary: Sequence[str]
    train: Part
    test: Part
    base: Sequence[int] | None
    among: Sequence[int] | None = None


@dataclass(frozen=True)
class Source:
    """Where a scene's material comes from.

    Attributes:
        identity: changes whenever an input does: images and how they are decoded, labels, prompts, words, files,
            weights and their precision.
        origin: the same for what is fitted on.
    """

    spec: BenchSpec
    key: SceneKey
    workspace: Workspace
    weak: CachedEncoder
    strong: CachedEncoder
    identity: str
    origin: str

    def load(self) -> Material:
        """The tensors.

        Raises:
            TransmiterError: if the data cannot be used.
        """
        return from_features(self) if self.key.teacher.features is not None else from_images(self)


def open_source(spec: BenchSpec, key: SceneKey, workspace: Workspace) -> Source:
    """A scene's source; nothing is computed yet.

    Raises:
        UsageError: if a file, folder or model does not exist.
    """
    if key.teacher.features is not None:  # files before models, which may have to be downloaded
        train, test = ([existing_identity(feature_path(key, part))] for part in ("train", "test"))
    else:
        decoding = workspace.decoding or "full"
        train, test = (labelled_identity(images_of(key, part), decoding) for part in ("train", "test"))
        finetuned = lasting_name(key.fill(key.teacher.finetuned or ""))
        train.append(finetuned if finetuned == PROBE else finetuned_digest(finetuned, workspace))
        test += [existing_identity(expanded(key.measured.map))] if key.measured.map else []
    train += text_identity(spec, key)
    weak, strong = (workspace.open(resolve_model(name)) for name in (key.weak, key.strong))
    models = [part for one in (weak, strong) for part in (one.fingerprint, str(one.encoder.dtype))]
    origin = digest(*models, *train)
    return Source(spec, key, workspace, weak, strong, digest(origin, *test), origin)


def labelled_identity(images: ImageSet, decoding: Decoding) -> list[str]:
    """What images and their labels are known by: labels may change in a list while the image files do not."""
    each = [part for file in images.files for part in (str(place_of(file)), canonical_json(file.label))]
    return [canonical_json(images.label_names), decoding, *each]


def text_identity(spec: BenchSpec, key: SceneKey) -> list[str]:
    """The content of a scene's prompts and auxiliary words, which names and paths do not tell.

    Raises:
        UsageError: if there are no such templates or words.
    """
    prompts = None if key.data.templates is None else read_templates(key.data.templates)
    pairs = list(prompts.items()) if isinstance(prompts, dict) else prompts  # the order decides among equal names
    return [canonical_json([key.data.template, pairs]), canonical_json(auxiliary_words(spec.aux_words))]


def feature_path(key: SceneKey, part: str) -> Path:
    """A feature file of a scene."""
    data = (key.data if part == "train" else key.measured).name
    return expanded(key.fill(key.teacher.features or "", part=part, data=data))


def existing_identity(path: Path) -> str:
    """A file's identity.

    Raises:
        UsageError: if there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", listing(path))
    return file_identity(str(path))


def images_of(key: SceneKey, part: str) -> ImageSet:
    """The train or test images of a scene."""
    data = key.data if part == "train" else key.measured
    limit = data.limit if part == "train" else None
    return open_images(DataSpec(data.images or "", data.root, None, limit), part)


def vocabulary_of(source: Source, names: Sequence[str]) -> list[str]:
    """Classes and auxiliary words."""
    words = auxiliary_words(source.spec.aux_words)
    return list(build_vocabulary(names, words, source.spec.vocabulary_size, source.key.seed))


def templates_of(key: SceneKey, names: Sequence[str], labels: Sequence[str]) -> Templates:
    """The prompts of a scene's data set."""
    return choose_templates([key.data.template] if key.data.template else [], key.data.templates, names, labels)


def from_features(source: Source) -> Material:
    """Material from the authors' feature files; all views of train images, the plain view of test images."""
    files = {part: read_feature_file(feature_path(source.key, part)) for part in ("train", "test")}
    names = list(files["train"].classes)
    if list(files["test"].classes) != names:
        raise TransmiterError(
            f"The feature files of {source.key} have different classes, or another order of them.",
            "extract the features of both parts from one list of classes",
        )
    device = source.workspace.method_device
    vocabulary = vocabulary_of(source, names)
    templates = templates_of(source.key, names, names)
    texts = [encoder.text_embeddings(vocabulary, templates).to(device) for encoder in (source.weak, source.strong)]
    scales = [encoder.facts.logit_scale for encoder in (source.weak, source.strong)]
    weak, strong = (
        source.spec.names.get(name, name.replace("/", "-")) for name in (source.key.weak, source.key.strong)
    )

    def part(name: str, views: bool) -> Part:
        file = files[name]
        rows = {key: feature(file, key, views).to(device) for key in (f"{weak}/images", f"{strong}/images")}
        logits = feature(file, f"{weak}/finetuned_logits", views)[:, : len(names)].float().to(device)
        repeated = len(logits) // len(file.tensors["labels"])
        low, high = (Embeddings(rows[f"{one}/images"], texts[i], scales[i]) for i, one in enumerate((weak, strong)))
        teacher = Teacher(logits, low, head_of(file, weak, len(names), low))
        return Part(teacher, high, file.tensors["labels"].repeat(repeated).to(device))

    wanted = source.spec.protocol == BASE_TO_NOVEL
    base = (files["test"].base or coop_base(len(names))) if wanted else None
    return Material(vocabulary, part("train", True), part("test", False), base)


def head_of(file: FeatureFile, name: str, classes: int, weak: Embeddings) -> Float[Tensor, "classes width"] | None:
    """The fine-tuned class embeddings of a feature file times the logit scale; None if it has none of that width."""
    texts = file.tensors.get(f"{name}/finetuned_texts")
    if texts is None or texts.ndim != 2 or len(texts) < classes or texts.shape[1] != weak.images.shape[1]:
        return None
    return weak.logit_scale * F.normalize(texts[:classes].float(), dim=-1).to(weak.images.device)


def feature(file: FeatureFile, name: str, views: bool) -> Tensor:
    """A tensor of a feature file; with all its views one after the other, where they are asked for and there.

    Raises:
        TransmiterError: if the file lacks it.
    """
    if name not in file.tensors:
        has = ", ".join(sorted(one for one in file.tensors if not one.endswith(".views")))
        raise TransmiterError(f"The feature file has no {name!r}, only {has}.", "name the model in [names]")
    if views and f"{name}.views" in file.tensors:
        return file.tensors[f"{name}.views"].flatten(0, 1)
    return file.tensors[name]


def from_images(source: Source) -> Material:
    """Material from images; in base-to-novel, train images of novel classes are left out by their labels."""
    key, device = source.key, source.workspace.method_device
    train, test = (images_of(key, part) for part in ("train", "test"))
    names, labels = class_names(train.label_names, None)
    mapping = read_map(expanded(key.measured.map) if key.measured.map else None, names, labels)
    test = mapping.known_only(test)  # fails on a strange label before anything is encoded
    vocabulary, templates = vocabulary_of(source, names), templates_of(key, names, labels)
    base = coop_base(len(names)) if source.spec.protocol == BASE_TO_NOVEL else None
    if base is not None:
        seen = {labels[i] for i in base}
        train = ImageSet(tuple(file for file in train.files if file.label in seen), train.label_names, train.split)
    if not key.measured.allow_overlap:
        require_apart(train, test, source)
    both = [encode(source.weak, one, vocabulary, templates) for one in (train, test)]
    indices = (both[0].images.labels(labels), mapping.indices(both[1].images.files))
    numbers = [torch.tensor(one, device=device) for one in indices]
    teacher = teacher_of(source, both[0].embeddings, numbers[0], names, templates)
    elsewhere = replace(teacher, own_data=False) if key.target and isinstance(teacher, FinetunedLogits) else teacher

    def part(seen: EncodedImages, labelled: Tensor, teacher: FinetunedModel) -> Part:
        strong = encode_same(source.strong, seen, vocabulary, templates)
        return Part(as_teacher(teacher, seen.images.files, seen.embeddings), strong.embeddings, labelled)

    learned, measured = (part(*one) for one in zip(both, numbers, (teacher, elsewhere), strict=True))
    return Material(vocabulary, learned, measured, base, mapping.among(test))


def require_apart(train: ImageSet, test: ImageSet, source: Source) -> None:
    """Raise TransmiterError if test images are train images, too."""
    known = set(fingerprints(train.files, source.workspace))
    shared = sum(fingerprint in known for fingerprint in fingerprints(test.files, source.workspace))
    if shared:
        raise TransmiterError(
            f"{shared:,} of the {len(test.files):,} test images of {source.key.measured.name!r} are among the train "
            "images (by their content), so nothing can be measured on them.",
            "pass other images, or write allow_overlap = true into its [[data]]",
        )


def teacher_of(
    source: Source, weak: Embeddings, labels: Tensor, names: Sequence[str], templates: Templates
) -> FinetunedModel:
    """The fine-tuned weak model of a scene; a probe is trained on the train images, which are given with labels."""
    key = source.key
    if key.teacher.finetuned == PROBE:
        return probe(weak, labels, len(names), key)
    return open_finetuned(key.fill(key.teacher.finetuned or ""), source.weak, names, templates)


def probe(weak: Embeddings, labels: Tensor, classes: int, key: SceneKey) -> FinetunedHead:
    """A linear probe on some or all labelled train images."""
    chosen = choose_shots(labels.tolist(), key.shots, key.seed)
    shown = weak.only(torch.tensor(chosen))
    return probe_head(shown, labels[chosen], classes, key.seed)
