"""One classifier for all classes: a discriminant for those with images, strong scores and a correction for the others.

The two do not compare as they are: a discriminant is sure of what it has seen, and gives images of all other classes to
these, too. How far the classes without images must be lifted, or lowered, is seen by leaving classes out: half of those
with images are put aside with their images, and both classifiers are made of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from transmiter_cli.method.discriminant import TINY, Chosen, Linear, Moments, best_temperature, discriminants
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.per_image import PerImage
from transmiter_cli.method.unseen import FEWEST, Carrier, all_rows, left_out, some_rows, unseen_classifier

SEEN = 0.5
"""A class goes by its own images where they decide more than half of its scores."""
QUARTER = 0.25
"""A class with this share of its even share of the images weighs its own statistics and the rest alike."""
CALMEST = 0.01
"""Scores that contradict the posterior keep this part of their differences, and with it their order."""
REPEATS = 6
"""How often half of the classes is left out."""


def shares_of_images(counts: Float[Tensor, " classes"], images: int) -> Float[Tensor, " classes"]:
    """How far each class goes by its own images, 0 to 1, given how many it has of them all."""
    return counts.square() / (counts.square() + (QUARTER * images / len(counts)) ** 2)


def merged_classifier(
    strong: Embeddings,
    carriers: Sequence[Carrier],
    posterior: PerImage,
    chosen: Chosen,
    share: Float[Tensor, " classes"],
    least: float,
) -> Linear:
    """The discriminant's scores for classes with images, and those of `unseen_classifier`, lifted, for the others.

    Args:
        strong: the strong model on the unlabelled images.
        carriers: what teachers say of classes without images.
        posterior: the soft labels of the images.
        chosen: the discriminant.
        share: how far a class goes by its own images, 0 to 1.
        least: the lowest lift. Where a teacher is trusted, no lift below 0 can be: it may be blind for just the classes
            without images, which leaving out those that it knows does not show.
    """
    unseen = unseen_classifier(strong, carriers, share <= SEEN, all_rows(strong))
    calm = calming(unseen(strong.unit_images(chosen.rows)), posterior[chosen.rows])
    unseen = Linear(calm * unseen.weight, calm * unseen.bias)
    lift = find_lift(strong, carriers, posterior, chosen, share, least, calm)
    weight = blend(unseen.weight.T, chosen.classifier.weight.T, share).T
    return Linear(weight, blend(unseen.bias[None], chosen.classifier.bias[None], share)[0] + lift * (share <= SEEN))


def calming(scores: Float[Tensor, "rows classes"], posterior: Float[Tensor, "rows classes"]) -> float:
    """The factor, 1 at most, that makes scores no surer than the posterior asks for."""
    return min(max(best_temperature(scores, posterior)[0], CALMEST), 1.0)


def blend(
    first: Float[Tensor, "rows classes"], second: Float[Tensor, "rows classes"], share: Float[Tensor, " classes"]
) -> Float[Tensor, "rows classes"]:
    """Among classes with a share of 1, the scores of the second; among those with 0, those of the first.

    Each is centred over the classes by these shares, so that the two scales meet at the mean score.
    """

    def centred(scores: Tensor) -> Tensor:
        return scores - (share * scores).sum(-1, keepdim=True) / share.sum().clamp_min(TINY)

    return first + share * (centred(second) - centred(first))


def find_lift(
    strong: Embeddings,
    carriers: Sequence[Carrier],
    posterior: PerImage,
    chosen: Chosen,
    share: Float[Tensor, " classes"],
    least: float,
    calm: float = 1.0,
) -> float:
    """What to add to scores of classes without images, so that as few images as possible change sides.

    Arguments as for `merged_classifier`, and the factor of strong scores. 0 where all classes have images, or too few
    to leave some out.
    """
    seen = share > SEEN
    if bool(seen.all()) or int(seen.sum()) < FEWEST:
        return 0.0
    texts = strong.unit_texts()[: len(seen)].double()
    some = some_rows(torch.arange(len(chosen.rows), device=seen.device), len(seen))
    rows, held_out = chosen.rows[some], chosen.held_out[some]
    images, answers = strong.unit_images(rows), posterior[rows].argmax(-1)
    aside, rest = list[Tensor](), list[Tensor]()
    for held in left_out(seen.nonzero().flatten(), 2, REPEATS):
        away = torch.isin(answers, held)
        if bool(away.all()) or not bool(away.any()):
            continue
        out = torch.zeros_like(seen)
        out[held] = True
        kept = rows[~away]
        scores = calm * unseen_classifier(strong, carriers, out, kept)(images)
        labels = posterior[kept].double().masked_fill(out, 0.0)
        labels = labels / labels.sum(-1, keepdim=True).clamp_min(TINY)
        known = images[~away].double()
        moments = Moments(known.T @ known, labels.T @ known, labels.sum(0))
        own = discriminants(moments, texts, [chosen.shrinkage])[0](images) * chosen.temperature
        own[~away] = held_out[~away]
        ahead = margins(blend(scores, own, share.masked_fill(out, 0.0)), seen & ~out, out)
        aside.append(ahead[away])
        rest.append(ahead[~away])
    return max(best_threshold(torch.cat(aside), torch.cat(rest)), least) if aside else 0.0


def margins(
    scores: Float[Tensor, "rows classes"], first: Bool[Tensor, " classes"], second: Bool[Tensor, " classes"]
) -> Float[Tensor, " rows"]:
    """By how much the best of the first classes is ahead of the best of the second."""
    return scores[:, first].amax(-1) - scores[:, second].amax(-1)


def best_threshold(below: Float[Tensor, " below"], above: Float[Tensor, " above"]) -> float:
    """The number that fewest of `below` are above and of `above` are below, as shares; the middle one of several."""
    values = torch.cat([below, above]).sort().values
    middles = (values[1:] + values[:-1]) / 2
    over = 1 - torch.searchsorted(below.sort().values, middles) / len(below)
    under = torch.searchsorted(above.sort().values, middles) / len(above)
    wrong = over + under
    best = middles[wrong <= wrong.min() + 1e-9]
    return best[len(best) // 2].item()
