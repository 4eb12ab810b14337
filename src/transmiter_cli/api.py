"""fit, transfer, transfer_all, self_train and refine on tensors: transmiter for those who have embeddings already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.api_checks import (
    check_transfer,
    images_of,
    names_of,
    require_heeded,
    require_progress,
    strength_of,
    teachers_given,
)
from transmiter_cli.artefact import Artefact, Correction, require_artefact
from transmiter_cli.method.agreement import agreement
from transmiter_cli.method.choice import choose_reg, choose_rho
from transmiter_cli.method.class_counts import class_counts
from transmiter_cli.method.consensus.discriminant_transfer import discriminant_transfer
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.consensus.merging import have_images
from transmiter_cli.method.copies import distinct
from transmiter_cli.method.embeddings import (
    Embeddings,
    InvalidTensorError,
    require_embeddings,
)
from transmiter_cli.method.folds import fold_rows, folds_of
from transmiter_cli.method.linear.classifier import Linear, LinearClassifier
from transmiter_cli.method.linear.moments import total
from transmiter_cli.method.linear.refinement import refine_linear
from transmiter_cli.method.linear.ridge import ridge_moments, ridge_transfer
from transmiter_cli.method.linear.self_training import FEWEST_IMAGES, self_train_classifier
from transmiter_cli.method.metrics import check_labels
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.paper.cross_moment import cross_moment, cross_moments
from transmiter_cli.method.paper.distillation import Progress, fit_adapter
from transmiter_cli.method.paper.refinement import refine_adapter
from transmiter_cli.method.paper.transfer import transfer_adapters
from transmiter_cli.method.ranges import POSITIVE, one_or_several, plain, settings_of, within
from transmiter_cli.method.settings import Auto, FitSettings, Method, RefineSettings
from transmiter_cli.method.torch_state import plain_torch


@plain_torch()
def fit(
    weak: Embeddings,
    finetuned_logits: Float[Tensor, "images classes"],
    vocabulary: Sequence[str] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Artefact:
    """Extract what the weak model learned in fine-tuning into an adapter of its logits (paper Sec. 3.2).

    Args:
        weak: the zero-shot weak model on unlabelled images and the vocabulary, the C task classes first. Of two or
            three entries in all, standardised logits say next to nothing: add auxiliary words.
        finetuned_logits: the fine-tuned weak model on the same images, as wide as its softmax takes them: cosines
            times their scale. Any constant per row may be added.
        vocabulary: names of the vocabulary entries; their numbers if left out.
        progress: called with (steps done, steps in all).
        **settings: fields of `FitSettings`: basis, epochs, batch_size, learning_rate, seed, ...

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, all texts are the same, or the training
            diverges.
        ValueError: if a setting cannot be, the vocabulary is no sequence, or the progress no function.
        TypeError: if there is no such setting.
    """
    recipe = settings_of(FitSettings, settings)
    require_embeddings("weak", weak)
    require_progress(progress)
    names = names_of(vocabulary, len(weak.texts))
    adapter = fit_adapter(weak, finetuned_logits, recipe, progress)
    return Artefact("weak", "adapter", adapter, weak.unit_texts(), weak.logit_scale, names, {"fit": asdict(recipe)})


@plain_torch()
@torch.no_grad()
def transfer(
    fitted: Artefact,
    weak: Embeddings,
    strong: Embeddings,
    method: Method = "adapter",
    reg: float | Auto = "auto",
    rho: float | Auto = "auto",
    finetuned_logits: Float[Tensor, "images classes"] | None = None,
    teachers: Sequence[Teacher] | Teacher = (),
    opaque_names: bool = False,
) -> Artefact:
    """Carry a fitted adapter to the strong model without labels and without gradients (paper Sec. 3.3).

    Args:
        fitted: what `fit` returned. "ridge" and "discriminant" take over no more than its vocabulary: where the adapter
            is not needed, one of a single epoch will do.
        weak: the weak model on unlabelled images.
        strong: the strong model on the same images and vocabulary.
        method: "adapter" (the paper's), "ridge" (regress the fine-tuned answers on the strong embeddings) or
            "discriminant" (a linear classifier from what strong and fine-tuned answers say together; of fewer than 20
            different images it learns nothing). Where the fine-tuned model masks classes that images show (-100 in
            their columns), "discriminant" leaves these to the strong model; "ridge" loses all of their images.
        reg: the paper's lambda divided by the number of images, or "auto", which takes the one that explains held-out
            images best; "adapter" only.
        rho: ridge strength, or "auto", which takes the one whose answers on held-out images are closest; "ridge" only.
        finetuned_logits: the fine-tuned weak model on the same images; "adapter" takes none, since `fit` saw them.
        teachers: fine-tuned models that bring weak models of their own, one or several, in place of or beside
            `finetuned_logits`; "ridge" takes one in all, "adapter" none. A teacher's `head` helps "discriminant" with
            classes that no image shows.
        opaque_names: whether the names of the classes are codes that say nothing to either zero-shot model: no
            teacher is doubted then for answering otherwise than these; "discriminant" only.

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or there are fewer than two classes or two
            images ("discriminant": two that differ).
        ValueError: if `fitted` is no fitted adapter, a setting cannot be or is another method's, the fine-tuned logits
            are missing or given to "adapter", or there are several teachers for "ridge".
    """
    if method not in get_args(Method):
        raise ValueError(f"the method is one of {', '.join(get_args(Method))}, not {method!r}.")
    opaque_names = plain(opaque_names)
    if type(opaque_names) is not bool:
        raise ValueError(f"opaque_names is true or false, not {opaque_names!r}.")
    fitted, adapter = check_transfer(fitted, [weak, strong])
    reg, rho = strength_of("reg", reg), strength_of("rho", rho)
    require_heeded(method, reg=reg != "auto", rho=rho != "auto", opaque_names=opaque_names)
    every = teachers_given(finetuned_logits, teachers, weak, adapter.classes, method)
    if method == "adapter":
        parts = cross_moments(strong, weak, fold_rows(len(strong)) if reg == "auto" else [None])
        strength = choose_reg(parts, adapter.basis) if reg == "auto" else reg
        moved = transfer_adapters(adapter, [reduce(add, parts)], [strength])[0][0]
        return on_strong(fitted, strong, method, moved, {"reg": strength})
    if method == "ridge":
        classifier, strength = ridge_classifier(strong, every[0].finetuned, rho)
        return on_strong(fitted, strong, method, LinearClassifier(classifier), {"rho": strength})
    classifier, verdict = discriminant_transfer(strong, every, opaque_names)
    told = {"opaque_names": True} if opaque_names else {}
    return on_strong(fitted, strong, method, LinearClassifier(classifier), {**told, "verdict": verdict.as_json()})


def ridge_classifier(
    strong: Embeddings, finetuned_logits: Float[Tensor, "images classes"], rho: float | Auto
) -> tuple[Linear, float]:
    """What ridge transfer makes of a strong model, and the strength it took.

    Raises:
        InvalidTensorError: if rows do not match, values are not finite, or rho is too small for these embeddings.
    """
    folds = folds_of(strong)
    parts = ridge_moments(strong, finetuned_logits, folds)
    strength = choose_rho(strong, finetuned_logits, folds, parts) if rho == "auto" else rho
    return ridge_transfer(strong, total(parts), strength), strength


@plain_torch()
@torch.no_grad()
def transfer_all(
    fitted: Artefact, weak: Embeddings, strong: Sequence[Embeddings] | Embeddings, regs: Sequence[float] | float
) -> list[list[Artefact]]:
    """Carry a fitted adapter to several strong models with several strengths, in one batched solve.

    Args:
        fitted: what `fit` returned.
        weak: the weak model on unlabelled images.
        strong: the strong models, or a single one, on the same images and vocabulary.
        regs: numbers, or a single one, each as `transfer`'s `reg`.

    Returns:
        For each strong model, an artefact for each strength.

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or there are fewer than two images.
        ValueError: if `fitted` is no fitted adapter, a strength is not positive, or there is none, or no strong model.
    """
    strong, given = one_or_several(strong), one_or_several(regs)
    if "auto" in given:
        raise ValueError("transfer_all takes numbers, not 'auto'; transfer does, with one strong model.")
    strengths = [float(within("reg", reg, POSITIVE)) for reg in given]
    for name, asked in (("strong model to transfer to", strong), ("strength to transfer with", strengths)):
        if not asked:
            raise ValueError(f"there is no {name}.")
    fitted, adapter = check_transfer(fitted, [weak, *strong])
    moved = transfer_adapters(adapter, [cross_moment(model, weak) for model in strong], strengths)
    return [
        [on_strong(fitted, model, "adapter", one, {"reg": reg}) for one, reg in zip(of_model, strengths, strict=True)]
        for model, of_model in zip(strong, moved, strict=True)
    ]


def on_strong(
    fitted: Artefact, strong: Embeddings, method: Method, correction: Correction, chosen: dict[str, Any]
) -> Artefact:
    """What was fitted, as it is on the strong model."""
    return replace(
        fitted,
        stage="strong",
        method=method,
        correction=correction.eval(),
        texts=strong.unit_texts(),
        logit_scale=strong.logit_scale,
        details={**fitted.details, "transfer": {"images": len(strong), **chosen}},
    )


@plain_torch()
@torch.no_grad()
def self_train(transferred: Artefact, images: Float[Tensor, "images width"] | Embeddings) -> Artefact:
    """Fit a transferred linear classifier to new unlabelled images by its own soft labels: no teacher, no label.

    The images should show all classes; it helps where those of the transfer did not. The transferred classifier counts
    like ten images of each class, so that a few images change little; images that repeat another count once. Classes
    that the images do not show may lose some points: `details` name those that hardly any seems to belong to.

    Args:
        transferred: what `transfer` returned, with method "discriminant" or "ridge".
        images: the strong model's embeddings of unlabelled images, or the strong model on them.

    Raises:
        InvalidTensorError: if widths do not match, values are not finite, or there are too few different images.
        ValueError: if it is no transferred linear classifier.
    """
    require_artefact("transferred", transferred)
    if transferred.stage != "strong" or isinstance(transferred.correction, Adapter):
        what = f"stage {transferred.stage!r}, method {transferred.method!r}"
        raise ValueError(f"self_train needs what transfer made with 'discriminant' or 'ridge', not {what}.")
    images = images_of(images, transferred)
    transferred = transferred.to(images.device)
    embeddings = transferred.embeddings(images)
    if len(kept := distinct(embeddings)) < len(images):
        embeddings = embeddings.only(kept)
    if len(embeddings) < FEWEST_IMAGES:
        raise InvalidTensorError(
            f"self-training needs {FEWEST_IMAGES} different images at least, not {len(embeddings)}."
        )
    assert isinstance(transferred.correction, LinearClassifier)
    start = transferred.correction.linear
    counts = class_counts(start.scores(embeddings))
    found = self_train_classifier(embeddings, start, counts)
    result = replace(transferred, stage="self_trained", correction=LinearClassifier(found).eval())
    changed = 1 - agreement(result.predictions(embeddings), transferred.predictions(embeddings))
    few = ~have_images(counts, len(embeddings))
    missing = [name for name, lacks in zip(result.class_names, few.tolist(), strict=True) if lacks]
    about = {"images": len(embeddings), "changed": changed, "missing": missing}
    return replace(result, details={**transferred.details, "self_train": about})


@plain_torch()
def refine(
    transferred: Artefact,
    images: Float[Tensor, "images width"] | Embeddings,
    labels: Int[Tensor, " images"],
    progress: Progress | None = None,
    **options: Any,
) -> Artefact:
    """Improve a correction of the strong model with a few labelled images, the model frozen (paper Sec. 3.4).

    An adapter is trained further; "ridge" and "discriminant" are linear classifiers, and become the mean of what they
    were and of a discriminant of the labelled images. Cross-validation on the labelled images decides how far either
    goes, and leaves the answers as they are where nothing helps; where each class has a label, a linear classifier's
    scores are calibrated then, too, and it starts from the zero-shot one if that is clearly better. An image that
    repeats another one counts once, with the label of the first; near-copies with the same label would make it too sure
    of itself.

    Args:
        transferred: what `transfer` or `self_train` returned.
        images: the strong model's embeddings of labelled images, or the strong model on them.
        labels: their class indices.
        progress: called with (epochs done, epochs in all).
        **options: fields of `RefineSettings`: epochs, learning_rate, folds, seed, ...; a linear classifier heeds
            folds and seed alone.

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or a label is no class.
        ValueError: if a setting cannot be, nothing was transferred yet, it was refined already, or the progress is no
            function.
        TypeError: if there is no such setting.
    """
    recipe = settings_of(RefineSettings, options)
    require_artefact("transferred", transferred)
    require_progress(progress)
    if transferred.stage in ("weak", "refined"):
        whose = {"weak": "what fit did", "refined": "what was refined: give all labels at once"}[transferred.stage]
        raise ValueError(f"refine needs what transfer or self_train returned, not {whose}.")
    images = images_of(images, transferred)
    transferred = transferred.to(images.device)
    embeddings = transferred.embeddings(images)
    check_labels(labels, len(embeddings), transferred.correction.classes)
    kept = distinct(embeddings)
    embeddings, labels = embeddings.only(kept), labels.to(images.device).long()[kept]
    correction = transferred.correction
    settings: dict[str, Any]
    if isinstance(correction, LinearClassifier):
        start = correction.linear
        found, share, factor, zero_shot = refine_linear(embeddings, labels, start, recipe.seed, recipe.folds)
        module: Correction = correction
        if found is not start:
            module = LinearClassifier(found).eval()
        unchanged = not share and not zero_shot
        settings = {"share": share, "factor": factor, "zero_shot": zero_shot}
        settings |= {"folds": recipe.folds, "seed": recipe.seed}
    else:
        module, epochs = refine_adapter(correction, embeddings, labels, recipe, progress)
        unchanged = not epochs
        settings = {"epochs_taken": epochs, **asdict(recipe)}
    learned = {"images": len(labels), "labelled_classes": len(labels.unique()), "unchanged": unchanged}
    details = {**transferred.details, "refine": {**learned, **settings}}
    return replace(transferred, stage="refined", correction=module, details=details)
