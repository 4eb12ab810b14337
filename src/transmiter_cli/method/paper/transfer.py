"""Knowledge transfer (paper Sec. 3.3): the rotation that carries the adapter to the strong model, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.paper.adapter import Adapter, with_basis
from transmiter_cli.method.paper.cross_moment import CrossMoment
from transmiter_cli.method.paper.polar import polar_factor


def basis_rotations(
    moments: Sequence[CrossMoment], basis: Float[Tensor, "basis vocabulary"], regs: Sequence[float]
) -> Float[Tensor, "models regs basis basis"]:
    """Omega = argmin over orthogonal Omega of |H_t Omega - H_s|^2 + reg N |Omega - I|^2 (paper Eq. 7), for all pairs.

    It is the polar factor of H_t'H_s + reg N I, float64; one batched solve gives them all. The paper's lambda is an
    absolute 500; `reg` is lambda / N, so that its strength does not depend on the number of images. Reflections are
    allowed.

    Args:
        moments: H_t'H_s of each strong model with the same weak one.
        basis: B.
        regs: strengths of the pull to the identity.
    """
    products = torch.stack([moment.in_basis(basis) for moment in moments])
    images = products.new_tensor([moment.images for moment in moments])
    shifts = images[:, None] * products.new_tensor(list(regs))
    identity = torch.eye(len(basis), dtype=products.dtype, device=products.device)
    return polar_factor(products[:, None] + shifts[..., None, None] * identity)


def transfer_adapters(adapter: Adapter, moments: Sequence[CrossMoment], regs: Sequence[float]) -> list[list[Adapter]]:
    """The adapter on each strong model with each strength: its basis becomes Omega' B, its correction stays as it is.

    No label and no gradient is used: the models only look at the same unlabelled images.

    Args:
        adapter: as it was fitted.
        moments: of each strong model with the weak one.
        regs: strengths of the pull to the identity.

    Returns:
        For each strong model, an adapter for each strength.
    """
    basis = adapter.basis.detach()
    rotations = basis_rotations(moments, basis, regs)
    return [[with_basis(adapter, rotation.T.float() @ basis) for rotation in of_model] for of_model in rotations]
