"""An open_clip model that encodes images and texts, loaded only when something must be encoded."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from transmiter_cli.embedding.choices import Precision
from transmiter_cli.embedding.encoders.harmless import harmless
from transmiter_cli.embedding.encoders.hub import cached_file, missing_file
from transmiter_cli.embedding.encoders.models import LOCAL, ModelSpec
from transmiter_cli.embedding.encoders.pickles import unwrapped
from transmiter_cli.embedding.encoders.towers import multiply_by_onednn, read_first_token_alone
from transmiter_cli.errors import TransmiterError, first_line, is_out_of_memory
from transmiter_cli.files import file_identity

LOGIT_BIAS = "logit_bias"
"""What training by SigLIP's loss adds to all logits, which changes no softmax; a model may be without."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class EncoderFacts:
    """What must be known of a model even when all embeddings are in the store.

    Attributes:
        logit_scale: s.
        image_parameters: the number of the image tower's parameters, all that inference needs once the classes' text
            embeddings are known.
    """

    logit_scale: float
    image_parameters: int


@dataclass(frozen=True)
class Encoder:
    """One model on one device.

    Attributes:
        spec: which model.
        device: where it runs.
        precision: "full" is float32. "half" is float16 by autocast on CUDA and MPS; on the CPU, where autocast would
            convert the weights for every batch, an image tower of bfloat16 weights. None is "half" on CUDA alone.
        identity: the `file_identity` of the weights that its embeddings are stored for; None takes any.
    """

    spec: ModelSpec
    device: torch.device
    precision: Precision | None = None
    identity: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What the image tower computes in."""
        kind = self.device.type
        if (self.precision or ("half" if kind == "cuda" else "full")) == "full":
            return torch.float32
        return torch.bfloat16 if kind == "cpu" else torch.float16

    @cached_property
    @torch.inference_mode(False)  # its weights last longer than the call that first needs them
    def model(self) -> Any:
        """The open_clip model, its weights loaded, made faster.

        Raises:
            WrongCheckpointError: if the weights are not those of the architecture.
            TransmiterError: if others were written in their place since they were identified.
        """
        import open_clip

        with quiet():
            try:
                model: Any = open_clip.create_model(
                    self.spec.architecture,
                    load_weights=False,
                    pretrained_text=False,
                    force_quick_gelu=self.spec.quick_gelu,
                    force_preprocess_cfg=self.spec.preprocess,
                )
            except OSError as error:  # a text tower of transformers, whose configuration lies on the hub
                raise missing_text_tower(self.spec, error) from error
            load_weights(model, self.spec)
        if self.identity not in (None, file_identity(str(self.spec.weights))):
            what = f"The weights {self.spec.weights} changed while they were read."
            raise TransmiterError(what, "run the command again")
        model = model.to(self.device).eval()
        read_first_token_alone(model)
        if self.dtype == torch.bfloat16:
            model.visual.to(self.dtype)
        elif self.device.type == "cpu":
            multiply_by_onednn(model)
        return model

    @property
    def side(self) -> int:
        """Height of the image tower's input in pixels."""
        size = self.model.visual.preprocess_cfg["size"]
        return size if isinstance(size, int) else size[0]

    @cached_property
    def transform(self) -> Any:
        """open_clip's own way from a picture to the image tower's input."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False)

    @cached_property
    def preprocess(self) -> Callable[[Image.Image], UInt8[Tensor, "pixel_rows pixel_columns 3"]]:
        """From a picture to the pixels that the image tower sees.

        All of `transform` but its last two steps, from integers to the unit interval and normalisation: `input` takes
        them for a whole batch, where they cost less, and integers are a quarter of the bytes.
        """
        *steps, _, _ = self.transform.transforms

        def pixels(picture: Image.Image) -> Tensor:
            for step in steps:
                picture = step(picture)
            return torch.from_numpy(np.array(picture))

        return pixels

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """From texts to the text tower's input.

        Raises:
            TransmiterError: if its files are neither on this disk nor can be downloaded.
        """
        import open_clip

        with quiet():
            repository = self.spec.tokenizer_repository()
            if repository is None:
                try:
                    return open_clip.get_tokenizer(self.spec.architecture)
                except (OSError, ValueError) as error:
                    raise unreadable_tokenizer(self.spec, error) from error
            config = self.spec.text_config()
            try:
                return open_clip.tokenizer.HFTokenizer(
                    tokenizer_source(repository),
                    context_length=config.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
                    tokenizer_mode=config.get("tokenizer_mode"),
                    **config.get("tokenizer_kwargs", {}),
                )
            except (OSError, ValueError) as error:
                absent = [name for name in TOKENIZER_FILES if cached_file(repository, [name]) is None]
                purpose = f"the tokenizer of {self.spec.name}"
                raise missing_file(repository, absent or ["config.json"], purpose, first_line(error)) from error

    def facts(self) -> EncoderFacts:
        """Logit scale and size.

        Raises:
            WrongCheckpointError: if the logit scale is not positive and finite.
        """
        scale = self.model.logit_scale.detach().exp().item()
        if not 0 < scale < math.inf:
            raise WrongCheckpointError(
                f"{self.spec.name} has a logit scale of {scale}: it diverged, or its logit_scale is no logarithm.",
                "another checkpoint",
            )
        return EncoderFacts(scale, sum(parameter.numel() for parameter in self.model.visual.parameters()))

    @torch.inference_mode()
    def encode_images(self, batch: UInt8[Tensor, "images pixel_rows pixel_columns 3"]) -> Float[Tensor, "images width"]:
        """Unit-norm embeddings on the CPU, in half precision where the tower computes in one."""
        with self.autocast():
            embeddings = self.model.encode_image(self.input(batch))
        stored = torch.float32 if self.dtype == torch.float32 else torch.float16
        return F.normalize(embeddings.float(), dim=-1).to(stored).cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Unit-norm embeddings on the CPU, in half precision where the tower computes in one."""
        with self.autocast():
            embeddings = self.model.encode_text(self.tokenizer(list(texts)).to(self.device))
        stored = torch.float16 if self.dtype == torch.float16 else torch.float32
        return F.normalize(embeddings.float(), dim=-1).to(stored).cpu()

    def input(
        self, batch: UInt8[Tensor, "images pixel_rows pixel_columns 3"]
    ) -> Float[Tensor, "images 3 pixel_rows pixel_columns"]:
        """A batch where, and as, the image tower takes it: the bits that `transform` has for each picture alone."""
        channels = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        white, mean, deviation = self.normalisation
        normalised = channels.float().div_(white).sub_(mean).div_(deviation)
        return normalised.to(self.dtype) if self.dtype == torch.bfloat16 else normalised

    @cached_property
    @torch.inference_mode(False)
    def normalisation(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `transform` divides pixels by, subtracts from the channels, and divides these by.

        Tensors, since CUDA multiplies by the reciprocal of a number, which is another bit now and then.
        """
        last = self.transform.transforms[-1]
        white, mean, deviation = (
            torch.tensor(one, dtype=torch.float32, device=self.device)[:, None, None]
            for one in ([255.0], last.mean, last.std)
        )
        return white, mean, deviation

    def autocast(self) -> torch.autocast:
        """Half precision by autocast; nothing on the CPU."""
        half = self.dtype == torch.float16
        return torch.autocast(self.device.type, dtype=torch.float16 if half else None, enabled=half)


def load_weights(model: Any, spec: ModelSpec) -> None:
    """Load a checkpoint of any layout that open_clip knows, whatever a trainer or torch.compile put around it.

    Raises:
        WrongCheckpointError: if the weights are not those of the architecture.
    """
    import open_clip

    # This broad, since open_clip looks for the marks of many layouts in whatever the file holds: what is no checkpoint
    # of this model fails as RuntimeError, KeyError, AttributeError, even as StopIteration; a full disk as OSError.
    try:
        with TemporaryDirectory() as folder:
            path = spec.weights
            beside = {name for name, _ in model.named_buffers()} | {LOGIT_BIAS}
            weights = unwrapped(path, beside - model.state_dict().keys())
            if weights is not None:  # open_clip converts, resizes and completes what it reads from a file alone
                path = Path(folder) / "weights.pt"
                torch.save(weights, path)
            with harmless():
                open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except (TransmiterError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise wrong_checkpoint(spec, error) from error


@contextmanager
def quiet() -> Generator[None]:
    """Keep open_clip from warning, on the root logger, of weights that are loaded a moment later."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def tokenizer_source(repository: str) -> str:
    """The folder of a repository's tokenizer on this disk, for which transformers asks no network; else its name."""
    found = [cached_file(repository, [name]) for name in TOKENIZER_FILES]
    return str(found[0].parent) if found[0] and found[1] else repository


def missing_text_tower(spec: ModelSpec, error: OSError) -> TransmiterError:
    """The error for a text tower whose configuration cannot be had."""
    repository = spec.text_config().get("hf_model_name", "its text tower")
    return missing_file(repository, ["config.json"], f"the text tower of {spec.name}", first_line(error))


def unreadable_tokenizer(spec: ModelSpec, error: Exception) -> TransmiterError:
    """The error for a tokenizer in a local model's folder, where alone open_clip looks for it."""
    folder, named = spec.architecture.removeprefix(LOCAL), spec.text_config().get("hf_tokenizer_name", "")
    source = named if named.strip("./") else "where the model was saved"
    return TransmiterError(
        f"The tokenizer of {spec.name} cannot be read from {folder}: {first_line(error)}.",
        f"copy {', '.join(TOKENIZER_FILES)}, and the vocabulary if it is a file of its own, there from {source}",
    )


class WrongCheckpointError(TransmiterError):
    """Weights do not load into the architecture."""


def wrong_checkpoint(spec: ModelSpec, error: Exception) -> WrongCheckpointError:
    """The error for weights that do not load into the architecture."""
    architecture = spec.architecture.removeprefix(LOCAL)
    detail = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error).strip())
    return WrongCheckpointError(
        f"{spec.weights} does not hold weights of {architecture}: {shorten(detail, 200, placeholder=' ...')}",
        "name the architecture that was trained, or save the model alone: torch.save(model.state_dict(), PATH)",
    )
