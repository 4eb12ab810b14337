"""Self-training: a linear classifier of a strong model's embeddings, fitted to new images by its own soft labels.

No teacher and no label takes part. The soft labels are those of the classifier; a discriminant is made of them as in
transfer, but what its class means are expected to be comes from the classifier, not from the texts: of weights W and a
covariance S, Fisher's rule W = S^-1 M makes them M = S W. A second round multiplies the soft labels with what the first
discriminant says of each image by the other images. The covariance starts as one without a direction, worth an image of
each class.

Where classes are very uneven, soft labels give images of the large ones to small ones, whose means are pulled there. So
they are multiplied with the prior of the classes first, as far as that is believed.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.class_counts import believed_log_prior, class_counts
from transmiter_cli.method.embeddings import TINY, Embeddings
from transmiter_cli.method.folds import Folds, folds_of
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.discriminant import (
    CalibratedDiscriminant,
    choose_discriminant,
    expected_means,
    isotropic,
    out_of_fold_scores,
    score_deviation,
)
from transmiter_cli.method.linear.moments import Moments, fold_moments, total
from transmiter_cli.method.per_image import Computed, PerImage, Rows, softmax_of

WORTH = 10.0
"""The classifier that is there counts like so many images of each class."""
FEWEST_IMAGES = 10
"""Different images that are needed; of fewer there is no covariance to speak of."""


def self_train_classifier(strong: Embeddings, start: Linear, counts: Float[Tensor, " classes"] | None = None) -> Linear:
    """The mean of a classifier and of the discriminant of its soft labels, which weighs more the more images there are.

    The discriminant's scores are made to vary no more than the classifier's own: a discriminant of few images is too
    sure, and one of images that hardly differ has weights of any size.

    Args:
        strong: the strong model on unlabelled images.
        start: the classifier of its unit-norm embeddings, its softmax a probability.
        counts: `class_counts` of its scores, where they are known.
    """
    classes = len(start.bias)
    folds = folds_of(strong, prior=classes * isotropic(strong))
    scores = start.scores(strong)
    prior = believed_log_prior(class_counts(scores) if counts is None else counts).float()
    own = Computed(scores.shape, lambda rows: scores[rows] + prior)
    first, moments, means = fit_discriminant(strong, start, softmax_of(own), folds)
    (others,) = out_of_fold_scores(strong, moments, means, folds, [first.shrinkage])

    def product(rows: Rows) -> Float[Tensor, "rows classes"]:
        return F.softmax(own[rows] + F.log_softmax(first.factor * others[rows], -1), -1)

    found = fit_discriminant(strong, start, Computed(own.shape, product), folds)[0].classifier.centred()
    whole = total(moments)
    before, after = (score_deviation(one, whole) for one in (start, found))
    level = (before / after.clamp_min(TINY)).clamp_max(1.0)
    return start.blended(found.scaled(level), whole.mass / (whole.mass + WORTH))


def fit_discriminant(
    strong: Embeddings, start: Linear, posterior: PerImage, folds: Folds
) -> tuple[CalibratedDiscriminant, list[Moments], Float[Tensor, "classes width"]]:
    """The discriminant of soft labels, the moments of its parts, and where the classes were expected to be."""
    moments = fold_moments(strong, posterior, folds)
    means = expected_means(total(moments), start)
    return choose_discriminant(strong, posterior, means, folds, moments), moments, means
