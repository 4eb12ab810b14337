"""Knowledge transfer (paper Sec. 3.3): the rotation that carries the adapter to the strong model, in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.adapter import Adapter, with_basis
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.moments import cross_moment


def polar_factor(matrix: Float[Tensor, "size size"]) -> Float[Tensor, "size size"]:
    """The orthogonal matrix nearest to `matrix`: U V' of its singular value decomposition U S V'."""
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def basis_rotation(
    target: Embeddings, source: Embeddings, basis: Float[Tensor, "basis vocabulary"], reg: float
) -> Float[Tensor, "basis basis"]:
    """Omega = argmin over orthogonal Omega of |H_t Omega - H_s|^2 + reg N |Omega - I|^2 (paper Eq. 7).

    It is the polar factor of H_t'H_s + reg N I, float64. The paper's lambda is an absolute 500; `reg` is
    lambda / N, so that its strength does not depend on the number of images. Reflections are allowed.
    """
    moment = cross_moment(target, source, basis)
    return polar_factor(moment + reg * len(target) * torch.eye(len(moment), dtype=moment.dtype, device=moment.device))


def transfer_adapter(adapter: Adapter, weak: Embeddings, strong: Embeddings, reg: float) -> Adapter:
    """The adapter on the strong model: its basis becomes Omega' B, its correction stays as it is.

    No label and no gradient is used: both models only look at the same unlabelled images.

    Raises:
        InvalidTensorError: if the models do not share images and vocabulary.
    """
    rotation = basis_rotation(strong, weak, adapter.basis, reg)
    return with_basis(adapter, (rotation.T @ adapter.basis.double()).float())
