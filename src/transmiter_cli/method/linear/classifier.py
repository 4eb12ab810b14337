"""Linear classifiers of image embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transmiter_cli.method.embeddings import TINY, Embeddings
from transmiter_cli.method.per_image import Computed


@dataclass(frozen=True)
class Linear:
    """Class scores x'w_c + b_c of unit-norm image embeddings, float64."""

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]

    @classmethod
    def zero_shot(cls, model: Embeddings, classes: int) -> Linear:
        """A model's own logits s X T'."""
        weight = model.classifier(classes).double()
        return cls(weight, weight.new_zeros(classes))

    def __call__(self, images: Float[Tensor, "rows width"]) -> Float[Tensor, "rows classes"]:
        """Scores of unit-norm rows, in their precision."""
        return images @ self.weight.T.to(images.dtype) + self.bias.to(images.dtype)

    def __add__(self, other: Linear) -> Linear:
        return Linear(self.weight + other.weight, self.bias + other.bias)

    def scaled(self, factor: float | Float[Tensor, ""] | Float[Tensor, " classes"]) -> Linear:
        """Each class's scores times its factor, or times one for all."""
        factors = torch.as_tensor(factor, dtype=self.bias.dtype, device=self.bias.device)
        return Linear(factors[..., None] * self.weight, factors * self.bias)

    def centred(self) -> Linear:
        """The same classifier, its mean over the classes taken away, which no softmax sees."""
        return Linear(self.weight - self.weight.mean(0), self.bias - self.bias.mean())

    def towards(self, found: Linear, share: float) -> Linear:
        """Its mean with another, centred classifier of the given share; its own mean over the classes stays."""
        return self + (found + self.centred().scaled(-1.0)).scaled(share)

    def blended(self, found: Linear, share: Float[Tensor, " classes"]) -> Linear:
        """The classifier whose scores are the `blend` of its own and another's."""
        return Linear(blend(self.weight.T, found.weight.T, share).T, blend(self.bias, found.bias, share))

    def replaced(self, classes: Int[Tensor, " some"], found: Linear) -> Linear:
        """The same classifier with the weights and biases of some of its classes replaced."""
        return Linear(self.weight.index_copy(0, classes, found.weight), self.bias.index_copy(0, classes, found.bias))

    def only(self, classes: Int[Tensor, " some"]) -> Linear:
        """The classifier of some of its classes."""
        return Linear(self.weight[classes], self.bias[classes])

    def scores(self, model: Embeddings) -> Computed:
        """The scores of a model's images."""
        return Computed((len(model), len(self.bias)), lambda rows: self(model.unit_images(rows)))


def blend(
    first: Float[Tensor, "*rows classes"], second: Float[Tensor, "*rows classes"], share: Float[Tensor, " classes"]
) -> Float[Tensor, "*rows classes"]:
    """Among classes with a share of 1, the scores of the second; among those with 0, those of the first.

    Each is centred over the classes by these shares, so that the two scales meet at the mean score.
    """

    def less_their_mean(scores: Tensor) -> Tensor:
        return scores - (share * scores).sum(-1, keepdim=True) / share.sum().clamp_min(TINY)

    return first + share * (less_their_mean(second) - less_their_mean(first))


class LinearClassifier(nn.Module):
    """z_hat = x w_c + b_c: class logits straight from the image embedding, in float32.

    It takes the place of the strong model's text classifier, and costs nothing beside that.

    Args:
        linear: weight and bias.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format))
        self.bias = nn.Parameter(linear.bias.to(torch.float32, copy=True))

    @property
    def classes(self) -> int:
        """C, the number of task classes."""
        return len(self.bias)

    @property
    def linear(self) -> Linear:
        """Weight and bias in float64, without gradients."""
        return Linear(self.weight.detach().double(), self.bias.detach().double())

    def forward(self, images: Float[Tensor, "rows width"]) -> Float[Tensor, "rows classes"]:
        """Logits of the task classes; images need not be unit-norm."""
        return F.linear(F.normalize(images.float(), dim=-1), self.weight, self.bias)
