"""What one encoder says of one task: image embeddings, text embeddings and its logit scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.ranges import POSITIVE, plain

BLOCK = 8192
"""Rows that are worked on at a time where all rows at once would need too much memory."""
LARGEST = 1e15
"""Numbers beyond this mean nothing here, and the sum of their squares may leave float32's range."""
TINY = 1e-12
"""What a divisor is at least, and the length below which a row has no direction."""
ROUNDING = 1e-2
"""By how much a cosine, or the sum of probabilities, may differ from 1 in half precision."""
PROBABILITIES = "the fine-tuned logits are probabilities: none is negative, and each row sums to 1."
LOGARITHMS = "their logarithms, probabilities.clamp_min(1e-9).log()"
UNMASKED = "-100 in place of -inf, in classes that the model does not know"
CHECKED = 65_536
"""Rows that are searched for bad values at a time."""
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""What labels may be; torch computes next to nothing in its other unsigned types."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WIDEST = 1024
"""Numbers per row up to which a block has BLOCK rows; with more, it has fewer."""
Chosen = slice | Tensor | Iterable[Any]
"""Some of the rows: their numbers, a mask or a slice."""


class InvalidTensorError(TransmiterError, ValueError):
    """A tensor that cannot be worked with: wrong shape, too few rows, or values that are not finite."""


def require_tensor(name: str, value: object) -> None:
    """Raise InvalidTensorError unless a value is a tensor, as an array of NumPy is not."""
    if not isinstance(value, Tensor):
        fix = "torch.as_tensor(...)" if isinstance(value, list | tuple) or hasattr(value, "__array__") else None
        raise InvalidTensorError(f"{name} must be a torch tensor, not {kind_of(value)}.", fix)


def require_matrix(name: str, value: Any) -> None:
    """Raise InvalidTensorError unless a value is a tensor of two dimensions."""
    require_tensor(name, value)
    if value.ndim != 2:
        raise InvalidTensorError(f"{name} must be a matrix, one row each; got shape {tuple(value.shape)}.")


def kind_of(value: object) -> str:
    """The whole name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def require_finite(name: str, tensor: Tensor, masked: str | None = None) -> None:
    """Raise InvalidTensorError, naming the first bad row, unless all are floating-point numbers within LARGEST.

    A block at a time: a memory-mapped tensor may be larger than the memory.

    Args:
        name: what they are.
        tensor: the numbers.
        masked: what mends a row with -inf.
    """
    if tensor.layout != torch.strided:
        raise InvalidTensorError(f"{name} must be dense, not {tensor.layout}.", ".to_dense()")
    if tensor.is_meta:
        raise InvalidTensorError(f"{name} are on device 'meta', which holds no numbers.")
    if tensor.dtype not in FLOATS:
        raise InvalidTensorError(f"{name} must be floating-point numbers of 16 bits at least, not {tensor.dtype}.")
    rows = torch.atleast_1d(tensor.detach())
    for start, block in enumerate(rows.reshape(len(rows), -1).split(CHECKED) if rows.numel() else ()):
        low, high = block.aminmax()
        if not -LARGEST <= float(low) <= float(high) <= LARGEST:  # NaN is within no limits
            row = int(((block.abs() <= LARGEST) & block.isfinite()).all(-1).logical_not().nonzero()[0])
            said = f"values beyond {LARGEST:g}" if bool(block[row].isfinite().all()) else "NaN or infinite values"
            fix = masked if bool(block[row].isneginf().any()) else None
            raise InvalidTensorError(f"{name} hold {said} (first in row {start * CHECKED + row}).", fix)


def chosen_rows(rows: Any, images: int, device: torch.device) -> slice | Tensor:
    """Rows that a caller chose, as what a tensor on a device is indexed with.

    Raises:
        InvalidTensorError: if they are no whole numbers of rows that there are, no mask of all of them and no slice.
    """
    if isinstance(rows, slice):
        return rows
    if isinstance(rows, Iterable) and not isinstance(rows, Tensor | str):
        array: Any = rows
        rows = array.copy() if hasattr(rows, "__array__") else [*rows]  # torch takes no array with a negative stride
    said = "rows are whole numbers one after the other, a mask or a slice, not"
    try:
        found = torch.as_tensor(rows, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTensorError(f"{said} {kind_of(rows)}.") from error
    if found.ndim != 1 or found.layout != torch.strided or (len(found) and found.dtype not in (*INTEGERS, torch.bool)):
        raise InvalidTensorError(f"{said} {found.dtype} of shape {tuple(found.shape)}.")
    if found.dtype == torch.uint8:
        raise InvalidTensorError("rows of torch.uint8 may be a mask or numbers.", ".bool() or .long()")
    if found.dtype == torch.bool and len(found) != images:
        raise InvalidTensorError(f"the mask has {len(found)} entries for {images} images.")
    if found.dtype != torch.bool and len(found) and not -images <= int(found.min()) <= int(found.max()) < images:
        raise InvalidTensorError(f"rows from {int(found.min())} to {int(found.max())} of {images} images.")
    return found if found.dtype == torch.bool else found.long()


def block_rows(width: int) -> int:
    """How many rows to work on at a time, of so many numbers each."""
    return max(1, BLOCK * WIDEST // max(width, WIDEST))


def blocks(images: int, width: int) -> Iterator[slice]:
    """Consecutive slices, one at least, that together cover so many images, for work on `width` numbers of each."""
    rows = block_rows(width)
    for start in range(0, max(images, 1), rows):
        yield slice(start, min(start + rows, images))


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Image and text embeddings of one encoder (X, T and s of the paper's Sec. 3.1).

    Rows need not be unit-norm: they are normalised, in float32, where they are used. No gradient flows into them.
    Images may be a memory-mapped tensor larger than the memory: fit reads batches of them, and all else blocks. Refine
    and the linear probe take them into memory, and so do "discriminant" and self-train where images repeat others.

    Attributes:
        images: X, one row per image, in any floating type of 16 bits at least.
        texts: T, one row per vocabulary entry: the C task classes first, then the auxiliary words.
        logit_scale: s, what cosines are multiplied with; model.logit_scale.exp() of a CLIP model; a tensor will do.

    Raises:
        InvalidTensorError: on no dense tensor, other than two dimensions, widths or devices that differ, a width of 0,
            no floating-point numbers, NaN, values beyond LARGEST, or a model's own parameter as the scale, which is its
            logarithm.
    """

    images: Float[Tensor, "images width"]
    texts: Float[Tensor, "vocabulary width"]
    logit_scale: float

    if TYPE_CHECKING:

        def __init__(self, images: Tensor, texts: Tensor, logit_scale: float | Tensor) -> None: ...

    def __post_init__(self) -> None:
        for name, tensor in (("image embeddings", self.images), ("text embeddings", self.texts)):
            require_matrix(name, tensor)
            require_finite(name, tensor)
        object.__setattr__(self, "images", self.images.detach())
        object.__setattr__(self, "texts", self.texts.detach())
        if self.images.shape[1] != self.texts.shape[1]:
            widths = f"{self.images.shape[1]} and {self.texts.shape[1]}"
            raise InvalidTensorError(f"image and text embeddings have different widths: {widths}.")
        if not self.images.shape[1]:
            raise InvalidTensorError("image and text embeddings have no numbers: their width is 0.")
        if self.images.device != self.texts.device:
            devices = f"{self.images.device} and {self.texts.device}"
            raise InvalidTensorError(f"image and text embeddings are on different devices: {devices}.", ".to(device)")
        given: Any = self.logit_scale
        if isinstance(given, torch.nn.Parameter):
            raise InvalidTensorError(
                "the logit scale is a model's parameter, which holds its logarithm.", "logit_scale.exp()"
            )
        scale = given.item() if isinstance(given, Tensor) and given.numel() == 1 else plain(given)
        if not POSITIVE.holds(scale):
            raise InvalidTensorError(f"the logit scale must be positive and finite, not {scale!r}.")
        object.__setattr__(self, "logit_scale", float(scale))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        """Shapes and scale, without the numbers."""
        images, texts = len(self.images), len(self.texts)
        return f"<Embeddings: {images} images, {texts} texts, {self.texts.shape[1]} wide, scale {self.logit_scale:g}>"

    def only(self, rows: Chosen) -> Embeddings:
        """The same model on some of the images: their numbers in a tensor, an array or a list, a mask, or a slice.

        Raises:
            InvalidTensorError: if it is none of these.
        """
        return replace(self, images=self.images[chosen_rows(rows, len(self), self.images.device)])

    def unit_images(self, rows: slice | Tensor = slice(None)) -> Float[Tensor, "rows width"]:
        """The chosen image rows, unit-norm, float32."""
        return F.normalize(self.images[rows].float(), dim=-1)

    def unit_texts(self) -> Float[Tensor, "vocabulary width"]:
        """All text rows, unit-norm, float32."""
        return F.normalize(self.texts.float(), dim=-1)

    def classifier(self, classes: int | None = None) -> Float[Tensor, "classes width"]:
        """The weight s T[:C], whose products with unit-norm images are zero-shot logits; by default of all words."""
        return self.logit_scale * self.unit_texts()[:classes]

    def blocks(self, width: int = WIDEST) -> Iterator[slice]:
        """`blocks` of all images."""
        return blocks(len(self), width)


def require_embeddings(name: str, value: object) -> None:
    """Raise InvalidTensorError unless a value is the embeddings of a model, as its images alone are not."""
    if not isinstance(value, Embeddings):
        raise InvalidTensorError(
            f"{name} must be Embeddings, not {kind_of(value)}.", "Embeddings(images, texts, scale)"
        )


def require_same_device(first: Embeddings, second: Embeddings) -> None:
    """Raise InvalidTensorError if the embeddings of two models are on different devices."""
    if first.images.device != second.images.device:
        devices = f"{first.images.device} and {second.images.device}"
        raise InvalidTensorError(f"the embeddings of two models are on different devices: {devices}.", ".to(device)")


def are_probabilities(rows: Float[Tensor, "rows classes"]) -> bool:
    """Whether rows are what a softmax makes of logits: no number is negative, and each row sums to 1."""
    return len(rows) > 0 and bool((rows >= 0).all()) and bool(((rows.float().sum(-1) - 1).abs() <= ROUNDING).all())


def require_images(model: Embeddings) -> None:
    """Raise InvalidTensorError unless there are two images of a model: one tells nothing of how they differ."""
    if len(model) < 2:
        raise InvalidTensorError(
            f"at least two images are needed, got {len(model)}.", "more images; labels need not be"
        )


def require_logits(value: Any) -> None:
    """Raise InvalidTensorError unless fine-tuned logits are a tensor of two dimensions."""
    require_tensor("the fine-tuned logits", value)
    if value.ndim != 2:
        raise InvalidTensorError(
            f"the fine-tuned logits must be images x classes; got shape {tuple(value.shape)}.",
            "of one score z for two classes, torch.stack([-z, z], 1)",
        )


def require_logit_values(logits: Tensor) -> None:
    """Raise InvalidTensorError unless fine-tuned logits are finite, and no probabilities."""
    require_finite("the fine-tuned logits", logits, masked=UNMASKED)
    if are_probabilities(logits[:BLOCK]):
        raise InvalidTensorError(PROBABILITIES, LOGARITHMS)


def check_teacher(model: Embeddings, finetuned_logits: Float[Tensor, "images classes"]) -> None:
    """Raise InvalidTensorError unless fine-tuned logits are of the images of a model, and lie on their device."""
    require_logits(finetuned_logits)
    if len(finetuned_logits) != len(model):
        shape = tuple(finetuned_logits.shape)
        raise InvalidTensorError(f"the fine-tuned logits have shape {shape}, but there are {len(model)} images.")
    require_images(model)
    classes = finetuned_logits.shape[1]
    if classes < 2:
        raise InvalidTensorError(f"at least two classes are needed, got {classes}.")
    if classes > len(model.texts):
        raise InvalidTensorError(f"{classes} classes do not fit a vocabulary of {len(model.texts)} entries.")
    if finetuned_logits.device != model.images.device:
        devices = f"{finetuned_logits.device}, the embeddings on {model.images.device}"
        raise InvalidTensorError(f"the fine-tuned logits are on {devices}.", ".to(device)")
    require_logit_values(finetuned_logits)
