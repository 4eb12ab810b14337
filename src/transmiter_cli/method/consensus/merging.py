"""One classifier for all classes: a discriminant for those with images, strong scores and a correction for the others.

The two do not compare as they are. Strong scores may be far wider than a probability's logarithm: they are made
narrower. And a discriminant is sure of what it has seen, so that images of all other classes go to these, too. It is
believed a little less where there are such classes, and these are lifted. How far is seen from two sides: what they
take from the others, by the held-out scores of images there are; what they win, by leaving classes out: half of those
with images are put aside, and what is said of them is learned from the images of the others.

A class with few images goes by both classifiers. Where fewer than ENOUGH classes have images, half of them say little,
and the discriminant is surest of all. Then strong scores are made as wide as its own, and the lift goes by what
zero-shot answers take from the classes with images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from transmiter_cli.method.class_counts import evenness
from transmiter_cli.method.consensus.unseen import Carrier, combined_correction, trials
from transmiter_cli.method.embeddings import TINY, Embeddings
from transmiter_cli.method.folds import all_rows, sampled_rows
from transmiter_cli.method.linear.classifier import Linear, blend
from transmiter_cli.method.linear.discriminant import CalibratedDiscriminant, fit_inverse_temperature
from transmiter_cli.method.per_image import PerImage, above_errors, blocks_of, centred

STRAY = 0.25
"""A class has images if it has more than this share of N / C; fewer are taken for strays."""
SCARCE, ALONE = 1.5, 10.0
"""A class with so many images goes by them and by what is said of it on others alike: with the first if a teacher is
trusted as much as the strong model. The less it is, the less its images say that the strong model's scores did not; the
second is for none."""
UNSEEN_DISCOUNT = 0.4
"""How much less a class goes by its own images, times the share of classes without any: it was not told from these."""
CALMEST = 0.01
"""The least deviation of calm scores: those that contradict the posterior keep their order."""
SHARES_TRIED = 5
"""How many shares are tried, from what counts of images tell to the most."""
ENOUGH = 5
"""Classes with images that are needed to leave half of them out."""
TRIALS_OF_HALVES = 6
"""How often half of the classes is left out."""


def have_images(counts: Float[Tensor, " classes"], images: int) -> Bool[Tensor, " classes"]:
    """Which classes have images, given how many each has of them all."""
    return counts > STRAY * images / len(counts)


def shares_of_images(
    counts: Float[Tensor, " classes"], labelled: Float[Tensor, " classes"], images: int, relative_trust: float
) -> Float[Tensor, " classes"]:
    """How far each class goes by its own images, 0 to 1: most n^2 / (n^2 + half^2) of a class with n images.

    `half`, the number of images at which it is half of the most, is that above which a class has images at all, or,
    where images are few, SCARCE over the relative trust: a mean of fewer is noise. `most` is 1, less UNSEEN_DISCOUNT
    times the share of classes without images, times the `evenness` of the others: of the images that soft labels give
    to a small class beside large ones, many are mistakes about these.

    Args:
        counts: of the images of each class; expectation maximisation, which finds classes without any, makes them far
            less even than they are where models are poor.
        labelled: the sum of the soft labels of each class, by which the evenness goes therefore.
        images: all of them.
        relative_trust: as for `merge`.
    """
    half = max(STRAY * images / len(counts), min(SCARCE / max(relative_trust, TINY), ALONE))
    seen = have_images(counts, images)
    most = (1 - UNSEEN_DISCOUNT * (~seen).double().mean()) * evenness(labelled[seen])
    return most * counts.square() / (counts.square() + half**2)


def raised_shares(
    share: Float[Tensor, " classes"],
    seen: Bool[Tensor, " classes"],
    scores: Float[Tensor, "rows classes"],
    held_out: Float[Tensor, "rows classes"],
    by_teachers: Float[Tensor, "rows classes"],
) -> Float[Tensor, " classes"]:
    """The shares of the classes with images, raised towards their most as far as the teachers' posterior asks for it.

    In the soft labels the strong model had a part, but none in that posterior: what explains it better is right. Step
    by step, as long as the cross-entropy of calibrated scores with it falls; not at all, if that falls by no more than
    its standard error. Shares are never lowered: the scores have learned the teachers' mistakes on these very images.

    Args:
        share: how far each class goes by its own images.
        seen: which classes have images. What teachers say tells nothing of the others.
        scores: of the strong model, with what is said of classes on other images.
        held_out: those of the discriminant, which did not see the images.
        by_teachers: the posterior of the teachers alone.
    """
    most = 1 - UNSEEN_DISCOUNT * (~seen).to(share.dtype).mean()
    missing = torch.where(seen, most - share, 0.0)
    first = lowest = cross_entropies(blend(scores, held_out, share), by_teachers)
    best = share
    for step in range(1, SHARES_TRIED):
        tried = share + step / (SHARES_TRIED - 1) * missing
        found = cross_entropies(blend(scores, held_out, tried), by_teachers)
        if not found.mean() < lowest.mean():
            break
        best, lowest = tried, found
    return best if above_errors(first - lowest, 1.0) else share


def cross_entropies(
    scores: Float[Tensor, "rows classes"], labels: Float[Tensor, "rows classes"]
) -> Float[Tensor, " rows"]:
    """Of each image's calibrated scores with its soft label."""
    factor, _ = fit_inverse_temperature(scores, labels)
    return -(labels * F.log_softmax(factor * scores, -1)).sum(-1).double()


def sum_of(posterior: PerImage) -> Float[Tensor, " classes"]:
    """How many images each class has by the soft labels."""
    return torch.stack([posterior[rows].double().sum(0) for rows in blocks_of(posterior)]).sum(0)


@dataclass(frozen=True)
class MergeInputs:
    """What is merged, and the images that tell how.

    Attributes:
        strong: the strong model on the unlabelled images.
        carriers: the teachers that are trusted, and what each says of classes on other images.
        posterior: the soft labels of the images.
        discriminant: of these.
    """

    strong: Embeddings
    carriers: Sequence[Carrier]
    posterior: PerImage
    discriminant: CalibratedDiscriminant


@dataclass(frozen=True)
class MergedClassifier:
    """A classifier for all classes.

    Attributes:
        classifier: its softmax is a probability.
        held_out: its scores of the images that the discriminant was chosen on. The discriminant in them did not see
            these; what is said of classes on other images was learned from them, too.
    """

    classifier: Linear
    held_out: Float[Tensor, "rows classes"]


def merge(
    inputs: MergeInputs,
    counts: Float[Tensor, " classes"],
    relative_trust: float,
    by_teachers: PerImage | None = None,
) -> MergedClassifier:
    """The discriminant's scores for classes, as far as they have images, and for the rest the corrected strong ones.

    Those of classes without images are lifted.

    Args:
        inputs: what is merged.
        counts: how many images each class has.
        relative_trust: how far a teacher is trusted beside the strong model: 0 for not at all, 1 for as much as it or
            more.
        by_teachers: the posterior of the trusted teachers alone.
    """
    strong, discriminant = inputs.strong, inputs.discriminant
    seen, labelled = have_images(counts, len(strong)), sum_of(inputs.posterior)
    share = shares_of_images(counts, labelled, len(strong), relative_trust)
    images, labels = strong.unit_images(discriminant.rows), inputs.posterior[discriminant.rows]
    zero_shot = Linear.zero_shot(strong, len(seen))
    correction = combined_correction(inputs.carriers, strong, seen, all_rows(strong))
    corrected = zero_shot + correction
    scores = corrected(images)
    scale = calming_factor(scores, labels, seen)
    if int(seen.sum()) < min(ENOUGH, len(seen)):
        scale = max(scale, matching_factor(scores, discriminant.held_out, seen))
    if by_teachers is not None:
        share = raised_shares(share, seen, scale * scores, discriminant.held_out, by_teachers[discriminant.rows])
    held_out = blend(scale * scores, discriminant.held_out, share)
    won = margins_left_out(inputs, seen, share, scale, correction)
    known = seen[labels.argmax(-1)]
    lift = unseen_lift(won, held_out[known], zero_shot(images[known]), seen, relative_trust > 0)
    lifts = lift * (~seen).to(held_out.dtype)
    merged = corrected.scaled(scale).blended(discriminant.classifier, share)
    return MergedClassifier(Linear(merged.weight, merged.bias + lifts), held_out + lifts)


def calming_factor(
    scores: Float[Tensor, "rows classes"], posterior: Float[Tensor, "rows classes"], seen: Bool[Tensor, " classes"]
) -> float:
    """The factor, 1 at most, that makes scores no surer among classes with images than the posterior is.

    Scores that contradict the posterior keep a deviation of CALMEST; with a single class there is nothing to calm.
    """
    if int(seen.sum()) < 2:
        return 1.0
    labels = posterior[:, seen] / posterior[:, seen].sum(-1, keepdim=True).clamp_min(TINY)
    least = CALMEST / scores.std().clamp_min(CALMEST).item()
    return min(max(fit_inverse_temperature(scores[:, seen], labels)[0], least), 1.0)


def matching_factor(
    scores: Float[Tensor, "rows classes"], wanted: Float[Tensor, "rows classes"], seen: Bool[Tensor, " classes"]
) -> float:
    """The factor with which scores vary as far as the wanted ones among classes with images; 0 if they do not vary."""
    found, target = (deviation(one[:, seen]) for one in (scores, wanted))
    return target / found if found else 0.0


def deviation(scores: Float[Tensor, "rows classes"]) -> float:
    """The root of the mean squared difference of an image's scores from their mean."""
    return centred(scores).double().square().mean().sqrt().item()


def margins_left_out(
    inputs: MergeInputs,
    seen: Bool[Tensor, " classes"],
    share: Float[Tensor, " classes"],
    scale: float,
    correction: Linear,
) -> Float[Tensor, " left_out"]:
    """By how much images of classes that were left out prefer the others, half of those with images at a time.

    What teachers add to classes that are left out is shifted to what they add, on average, to those without images, of
    which they may say far less. Empty where too few classes have images.

    Args:
        inputs: what is merged.
        seen: which classes have images.
        share: how far each class goes by its own images.
        scale: the factor of corrected strong scores.
        correction: what teachers add to the strong model's own scores.
    """
    strong, discriminant = inputs.strong, inputs.discriminant
    found = [discriminant.held_out.new_empty(0, dtype=torch.float64)]
    if bool(seen.all()) or int(seen.sum()) < ENOUGH:
        return found[0]
    sample = sampled_rows(torch.arange(len(discriminant.rows), device=seen.device), len(seen))
    rows, held_out = discriminant.rows[sample], discriminant.held_out[sample]
    images, predicted = strong.unit_images(rows), inputs.posterior[rows].argmax(-1)
    zero_shot, mean = Linear.zero_shot(strong, len(seen)), images.mean(0, keepdim=True)
    usual = correction(mean)[:, ~seen].mean()
    for held, away in trials(seen, predicted, 2, TRIALS_OF_HALVES):
        without = combined_correction(inputs.carriers, strong, ~held, rows[~away])
        scores = (zero_shot + without)(images[away])
        scores[:, held] += usual - without(mean)[:, held].mean()
        scores = blend(scale * scores, held_out[away], share.masked_fill(held, 0.0))
        # Of classes that never had images, a teacher may know nothing: they are no part of the trial.
        found.append(margins(scores, seen & ~held, held).double())
    return torch.cat(found)


def margins(
    scores: Float[Tensor, "rows classes"], first: Bool[Tensor, " classes"], second: Bool[Tensor, " classes"]
) -> Float[Tensor, " rows"]:
    """By how much the best of the first classes is ahead of the best of the second."""
    return scores[:, first].amax(-1) - scores[:, second].amax(-1)


def unseen_lift(
    won: Float[Tensor, " left_out"],
    scores: Float[Tensor, "rows classes"],
    before: Float[Tensor, "rows classes"],
    seen: Bool[Tensor, " classes"],
    trusted: bool,
) -> float:
    """How far classes without images are lifted.

    By `best_lift`, at most so high that as many images of the others are lost as by zero-shot answers. Without classes
    left out, so high that half as many are, if a teacher is trusted. But never lowered: a class may have images that
    neither the models nor the discriminant answer with it.

    Args:
        won: by how much images of classes without images prefer the others, as far as leaving classes out tells; of
            those below the lift, none is lost.
        scores: held-out scores, not lifted yet, of images of the others.
        before: zero-shot scores of the same images.
        seen: which classes have images.
        trusted: whether any teacher is. The classifier is little else than zero-shot scores otherwise.
    """
    if not len(scores) or bool(seen.all()):
        return 0.0
    kept = margins(scores, seen, ~seen).double()
    lost = (margins(before, seen, ~seen) < 0).double().mean()
    if len(won):
        lift = min(best_lift(won, kept, (~seen).double().mean().item()), kept.quantile(lost).item())
    else:
        lift = kept.quantile(lost / 2).item() if trusted else 0.0
    return max(lift, 0.0)


def best_lift(won: Float[Tensor, " left_out"], kept: Float[Tensor, " rows"], unseen: float) -> float:
    """The lift with the fewest errors, if both groups of classes will have as many images as they have classes.

    The middle one of several. The two margins compare best where about as many classes have images as have none.

    Args:
        won: as for `unseen_lift`.
        kept: by how much images of the other classes prefer these; of those above the lift, none is lost.
        unseen: the share of classes without images.
    """
    won, kept = won.double().sort().values, kept.double().sort().values
    values = torch.cat([won, kept]).sort().values
    middles = (values[1:] + values[:-1]) / 2
    over = 1 - torch.searchsorted(won, middles).double() / len(won)
    under = torch.searchsorted(kept, middles).double() / len(kept)
    wrong = unseen * over + (1 - unseen) * under
    best = middles[wrong <= wrong.min() + 1e-9]  # rates that differ by rounding are the same
    return best[len(best) // 2].item()
