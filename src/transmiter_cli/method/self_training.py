"""Self-training: a linear classifier of a strong model's embeddings, fitted to new images by its own soft labels.

No teacher and no label takes part. The soft labels are those of the classifier; a discriminant is made of them as in
transfer, but what its class means are expected to be comes from the classifier, not from the texts: of weights W and a
covariance S, Fisher's rule W = S^-1 M makes them M = S W. A second round multiplies the soft labels with what the first
discriminant says of each image by the other images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.discriminant import (
    TINY,
    Linear,
    Moments,
    choose_discriminant,
    fold_moments,
    fold_rows,
    grams,
    held_out_scores,
    total,
)
from transmiter_cli.method.embeddings import Embeddings

ROUNDS = 2
SHRINKAGE = 0.5
"""The identity's share in the covariance that tells the expected class means."""
WORTH = 10.0
"""The classifier that is there counts like so many images of each class."""


def self_train_classifier(strong: Embeddings, start: Linear) -> Linear:
    """The mean of a classifier and of the discriminant of its soft labels, which weighs more the more images there are.

    Args:
        strong: the strong model on unlabelled images.
        start: the classifier of its unit-norm embeddings, its softmax a probability.
    """
    parts = fold_rows(len(strong))
    gram = grams(strong, parts)
    rows = torch.cat(parts).to(strong.images.device)
    own = torch.cat([start(strong.unit_images(block)) for block in strong.blocks(len(start.bias))])
    log_posterior = F.log_softmax(own, -1)
    found = start
    for _ in range(ROUNDS):
        posterior = log_posterior.exp()
        moments = fold_moments(strong, posterior, parts, gram)
        means = expected_means(total(moments), start)
        chosen = choose_discriminant(strong, posterior, means, parts, moments)
        found = chosen.classifier
        scores = held_out_scores(strong, moments, means, parts, [chosen.shrinkage])[0]
        log_posterior[rows] = F.log_softmax(own[rows] + F.log_softmax(chosen.temperature * scores, -1), -1)
    share = len(strong) / (len(strong) + WORTH * len(start.bias))
    weight = start.weight + share * (found.weight - start.weight)
    return Linear(weight, start.bias + share * (found.bias - start.bias))


def expected_means(moments: Moments, start: Linear) -> Float[Tensor, "classes width"]:
    """The class means, up to a factor and a common vector, of which Fisher's rule would make a classifier's weights."""
    means = moments.sums / moments.mass[:, None].clamp_min(TINY)
    covariance = (moments.gram - moments.sums.T @ means) / moments.mass.sum()
    directions = start.weight - start.weight.mean(0)
    return (1 - SHRINKAGE) * directions @ covariance + SHRINKAGE * covariance.diagonal().mean() * directions
