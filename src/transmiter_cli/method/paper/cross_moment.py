"""Second moments of models on the same images, without ever forming their N x M logits.

Images come in blocks, of any number and size: a product is taken in float32 within a block and summed over blocks
in float64, so what is held is O(d^2) however many images there are. The relative error is that of one float32
product, about 1e-6 of the moment's norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import TINY, WIDEST, Embeddings, InvalidTensorError, block_rows
from transmiter_cli.method.logits import EPSILON
from transmiter_cli.method.paper.basis import centred_texts

STRIPS = 8
"""Parts of a triangular matrix that a CPU multiplies one by one: 9/16 of the operations of the whole."""
CACHED = 2048
"""A width for which blocks are small enough to stay in a processor's cache between two operations."""


def is_bound_by_products(device: torch.device) -> bool:
    """Whether products cost more than starting them: on a GPU fewer and larger ones are faster, if of more numbers."""
    return device.type == "cpu"


class Standardizer:
    """The scalar of each image that standardises its row of logits, from the d x d geometry of the texts.

    With Tc the texts minus their mean row and x a unit-norm image, a row of centred logits is s Tc x, so that
    std(z)^2 = s^2 |Tc x|^2 / (M - 1) = s^2 |R x|^2 / (M - 1) with Tc = Q R: no logit is needed. A sum of squares, it
    loses no digits to cancellation, as x'(Tc'Tc)x would. R is triangular, and its zeros are mostly skipped on a CPU.

    Args:
        model: its texts and logit scale are used; its images are not looked at.
    """

    def __init__(self, model: Embeddings) -> None:
        self.centred = centred_texts(model.texts).float()
        self.scale = model.logit_scale
        root = torch.linalg.qr(self.centred / (len(self.centred) - 1) ** 0.5, mode="r").R
        strips = STRIPS if is_bound_by_products(root.device) else 1
        starts = range(0, len(root), max(1, math.ceil(len(root) / strips)))
        self.strips = [(start, root[start : start + starts.step, start:].T.contiguous()) for start in starts]

    def weights(self, images: Float[Tensor, "rows width"]) -> Float[Tensor, " rows"]:
        """The w with z~ = w Tc x, for float32 images that need not be unit-norm: s / (std(z) + EPSILON) / |x|, or 0."""
        length = torch.linalg.vector_norm(images, dim=-1).clamp_min(TINY)
        parts = [torch.linalg.vector_norm(images[:, start:] @ strip, dim=-1) for start, strip in self.strips]
        deviation = torch.linalg.vector_norm(torch.stack(parts), dim=0) / length
        weights = self.scale / (self.scale * deviation + EPSILON) / length
        return weights.masked_fill(length <= TINY, 0.0)


class CrossMoment:
    """X_t' diag(w_t w_s) X_s, summed over blocks of the same images seen by two models: d_t x d_s, whatever N.

    A standardised row is z~ = w Tc x with a scalar weight w, so its coordinates in a basis B are H = diag(w) X (B Tc)'
    and H_t'H_s = (B Tc_t) [X_t' diag(w_t w_s) X_s] (B Tc_s)' (paper Eq. 6). The bracket is what is summed.

    Args:
        target: of the model to transfer to.
        source: of the model to transfer from.

    Raises:
        InvalidTensorError: if the two models have vocabularies of different sizes.
    """

    def __init__(self, target: Standardizer, source: Standardizer) -> None:
        if len(target.centred) != len(source.centred):
            sizes = f"{len(target.centred)} and {len(source.centred)}"
            raise InvalidTensorError(f"the two models have vocabularies of {sizes} entries; they must be the same.")
        self.target, self.source = target, source
        self.images = 0
        shape = (target.centred.shape[1], source.centred.shape[1])
        self.sum = target.centred.new_zeros(shape, dtype=torch.float64)

    def add(self, target: Float[Tensor, "rows target_width"], source: Float[Tensor, "rows source_width"]) -> None:
        """Add a block of images, row i of both being the same image; they need not be unit-norm."""
        target, source = target.float(), source.float()
        weights = self.target.weights(target) * self.source.weights(source)
        self.sum += target.T @ (source * weights[:, None])
        self.images += len(target)

    def __add__(self, other: CrossMoment) -> CrossMoment:
        """The moment of the images of both; the models must be the same."""
        both = CrossMoment(self.target, self.source)
        both.sum, both.images = self.sum + other.sum, self.images + other.images
        return both

    def __sub__(self, other: CrossMoment) -> CrossMoment:
        """The moment of this one's images but for the other's, which are some of them."""
        rest = CrossMoment(self.target, self.source)
        rest.sum, rest.images = self.sum - other.sum, self.images - other.images
        return rest

    def in_basis(self, basis: Float[Tensor, "basis vocabulary"]) -> Float[Tensor, "basis basis"]:
        """H_t'H_s of all images so far, float64."""
        target, source = ((basis @ model.centred).double() for model in (self.target, self.source))
        return target @ self.sum @ source.T


def cross_moment(target: Embeddings, source: Embeddings) -> CrossMoment:
    """The cross-moment of two models on all their images, a block at a time.

    Raises:
        InvalidTensorError: if the two models saw different numbers of images or vocabulary entries.
    """
    return cross_moments(target, source, [None])[0]


def cross_moments(
    target: Embeddings, source: Embeddings, parts: Sequence[Int[Tensor, " _"] | None]
) -> list[CrossMoment]:
    """The same on each of several parts of the images; None is all of them, in order.

    Raises:
        InvalidTensorError: if the two models saw different numbers of images or vocabulary entries.
    """
    if len(target) != len(source):
        raise InvalidTensorError(f"the two models have {len(target)} and {len(source)} images; they must be the same.")
    of_target, of_source = Standardizer(target), Standardizer(source)
    width = CACHED if is_bound_by_products(target.images.device) else WIDEST
    moments: list[CrossMoment] = []
    for part in parts:
        moment = CrossMoment(of_target, of_source)
        for rows in target.blocks(width) if part is None else part.to(target.images.device).split(block_rows(width)):
            moment.add(target.images[rows], source.images[rows])
        moments.append(moment)
    return moments
