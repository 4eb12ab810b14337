"""Second moments of two models on the same images, without ever forming their N x M logits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.logits import EPSILON


def centred_texts(embeddings: Embeddings) -> Float[Tensor, "vocabulary width"]:
    """T minus the mean of its rows, float64."""
    texts = embeddings.unit_texts().double()
    return texts - texts.mean(0)


def standardizing_weights(
    images: Float[Tensor, "rows width"], gram: Float[Tensor, "width width"], vocabulary: int, logit_scale: float
) -> Float[Tensor, " rows"]:
    """S / (std(z) + EPSILON) of each row, from the quadratic form std(z)^2 = s^2 x' G x / (M - 1).

    `gram` is G = Tc'Tc, Tc the centred texts.
    """
    variance = ((images @ gram) * images).sum(-1).clamp_min(0) / (vocabulary - 1)
    return logit_scale / (logit_scale * variance.sqrt() + EPSILON)


def cross_moment(
    target: Embeddings, source: Embeddings, basis: Float[Tensor, "basis vocabulary"]
) -> Float[Tensor, "basis basis"]:
    """H_t'H_s, where H = Z~ B' are a model's standardised logits in the basis (paper Eq. 6).

    A standardised row is z~ = w Tc x with the scalar weight w = s / std(z), so H = diag(w) X (B Tc)' and

        H_t'H_s = (B Tc_t) [X_t' diag(w_t w_s) X_s] (B Tc_s)'.

    Only the bracket, d_t x d_s, is accumulated over images, in float64.

    Raises:
        InvalidTensorError: if the two models saw different numbers of images or vocabulary entries.
    """
    if len(target) != len(source):
        raise InvalidTensorError(f"the two models have {len(target)} and {len(source)} images; they must be the same.")
    if len(target.texts) != len(source.texts):
        sizes = f"{len(target.texts)} and {len(source.texts)}"
        raise InvalidTensorError(f"the two models have vocabularies of {sizes} entries; they must be the same.")
    texts_t, texts_s = centred_texts(target), centred_texts(source)
    gram_t, gram_s = texts_t.T @ texts_t, texts_s.T @ texts_s
    moment = texts_t.new_zeros(target.texts.shape[1], source.texts.shape[1])
    for rows in target.blocks():
        images_t, images_s = target.unit_images(rows).double(), source.unit_images(rows).double()
        weights_t = standardizing_weights(images_t, gram_t, len(texts_t), target.logit_scale)
        weights_s = standardizing_weights(images_s, gram_s, len(texts_s), source.logit_scale)
        moment += (images_t * (weights_t * weights_s)[:, None]).T @ images_s
    rows_of_basis = basis.double()
    return (rows_of_basis @ texts_t) @ moment @ (rows_of_basis @ texts_s).T


def ridge_moments(
    strong: Embeddings, targets: Float[Tensor, "images classes"]
) -> tuple[Float[Tensor, "width width"], Float[Tensor, "width classes"]]:
    """X'X and X'L in float64, accumulated in blocks."""
    width = strong.images.shape[1]
    gram = strong.images.new_zeros(width, width, dtype=torch.float64)
    cross = strong.images.new_zeros(width, targets.shape[1], dtype=torch.float64)
    for rows in strong.blocks():
        images = strong.unit_images(rows).double()
        gram += images.T @ images
        cross += images.T @ targets[rows].double()
    return gram, cross
