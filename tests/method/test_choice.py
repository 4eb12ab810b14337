from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from tests.conftest import World
from transmiter_cli.api import ridge_classifier
from transmiter_cli.method import choice
from transmiter_cli.method.choice import REGS, RHOS, choose_reg
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.folds import fold_rows, folds_of
from transmiter_cli.method.linear.moments import total
from transmiter_cli.method.linear.ridge import ridge_moments, ridge_transfer
from transmiter_cli.method.logits import standardize, zero_shot_logits
from transmiter_cli.method.paper import transfer
from transmiter_cli.method.paper.basis import compact_basis
from transmiter_cli.method.paper.cross_moment import CrossMoment, cross_moments
from transmiter_cli.method.paper.polar import polar_factor


def chosen_rho(strong: Embeddings, finetuned_logits: torch.Tensor) -> float:
    return ridge_classifier(strong, finetuned_logits, "auto")[1]


@pytest.mark.parametrize(("seed", "noise"), [(0, 0), (1, 0), (1, 2), (2, 0), (3, 2), (5, 2)])
def test_the_chosen_rho_has_the_least_cross_entropy_on_held_out_images(seed: int, noise: float):
    """Of the strong and the fine-tuned answers together with ridge's."""
    world = World(seed)
    finetuned = world.finetuned_logits
    finetuned = finetuned + noise * torch.randn(finetuned.shape, generator=torch.Generator().manual_seed(seed))

    def entropy(rho: float) -> float:
        result = 0.0
        for part in fold_rows(len(finetuned)):
            rest = torch.ones(len(finetuned), dtype=torch.bool)
            rest[part] = False
            strong = world.strong.only(rest)
            moments = ridge_moments(strong, finetuned[rest], folds_of(strong))
            moved = ridge_transfer(world.strong, total(moments), rho)
            logits = zero_shot_logits(world.strong, part)
            wanted = (logits[:, : world.classes] + finetuned[part].log_softmax(-1)).softmax(-1)
            result -= (wanted * moved(world.strong.unit_images(part)).log_softmax(-1)).sum().item()
        return result

    assert chosen_rho(world.strong, finetuned) == min(RHOS, key=entropy)


@patch.object(choice, "JUDGED", 60)
@pytest.mark.parametrize("seed", range(4))
def test_rho_hardly_depends_on_the_order_of_images(seed: int):
    """Folders list images by class: of more than are looked at, each class has its share."""
    world = World(seed)
    noise = 2 * torch.randn(world.finetuned_logits.shape, generator=torch.Generator().manual_seed(seed))
    order = world.labels.argsort()
    found = [
        RHOS.index(chosen_rho(world.strong.only(rows), (world.finetuned_logits + noise)[rows]))
        for rows in (order, order.flip(0), torch.arange(len(order)))
    ]
    assert max(found) - min(found) <= 1


def parts_of(world: World) -> list[CrossMoment]:
    """The cross-moments of the fifths."""
    return cross_moments(world.strong, world.weak, fold_rows(len(world.labels)))


def test_noise_asks_for_more_regularisation(world: World):
    noise = 5 * torch.randn(world.finetuned_logits.shape, generator=torch.Generator().manual_seed(0))
    assert chosen_rho(world.strong, noise) > chosen_rho(world.strong, world.finetuned_logits)


def test_the_chosen_reg_has_the_least_residual_on_held_out_images(world: World):
    basis, candidates = compact_basis(world.weak.texts), (0.01, 1.0, 100.0)
    features = [standardize(zero_shot_logits(m)).logits.double() @ basis.T.double() for m in (world.strong, world.weak)]

    def held_out(reg: float) -> float:
        residual = 0.0
        for part in fold_rows(len(world.labels)):
            rest = torch.ones(len(world.labels), dtype=torch.bool)
            rest[part] = False
            target, source = (one[rest] for one in features)
            rotation = polar_factor(target.T @ source + reg * int(rest.sum()) * torch.eye(len(basis)).double())
            residual += (features[0][part] @ rotation - features[1][part]).square().sum().item()
        return residual

    assert choose_reg(parts_of(world), basis, candidates) == min(candidates, key=held_out)


def test_a_strength_is_that_of_the_images_it_is_solved_on(world: World):
    parts, basis = parts_of(world), compact_basis(world.weak.texts)
    with patch.object(transfer, "polar_factor", wraps=polar_factor) as solved:
        choose_reg(parts, basis, (3.0,))
    whole = sum(part.in_basis(basis) for part in parts)
    for part, call in zip(parts, solved.call_args_list, strict=True):
        rest = len(world.labels) - part.images
        expected = whole - part.in_basis(basis) + 3.0 * rest * torch.eye(len(basis)).double()
        torch.testing.assert_close(call.args[0][0, 0], expected, atol=1e-6, rtol=1e-6)


def test_all_fifths_of_few_images_are_held_out(world: World):
    held: list[int] = []

    def factor(matrix: torch.Tensor) -> torch.Tensor:
        held.append(len(matrix[0]))
        return polar_factor(matrix)

    with patch.object(transfer, "polar_factor", factor):
        choose_reg(parts_of(world), compact_basis(world.weak.texts))
        with patch.object(choice, "JUDGED", 100):
            choose_reg(parts_of(world), compact_basis(world.weak.texts))
    assert len(held) == 5 + 2, "of 400 images; 80 are too few for 100, 160 are enough"


def test_images_that_say_nothing_ask_for_the_most_regularisation(world: World):
    silent = replace(world.strong, images=torch.zeros_like(world.strong.images))
    parts = cross_moments(silent, world.weak, fold_rows(len(silent)))
    assert choose_reg(parts, compact_basis(world.weak.texts)) == max(REGS)


@pytest.mark.parametrize("images", [0, 1])
def test_a_strength_needs_two_images(world: World, images: int):
    strong = world.part(world.strong, slice(0, images))
    with pytest.raises(InvalidTensorError, match="two images"):
        chosen_rho(strong, world.finetuned_logits[:images])
