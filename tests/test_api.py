"""The tensor API, from fit to evaluate, and artefacts on disk."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import transmiter_cli as tm
from tests.conftest import World, random_embeddings
from transmiter_cli.description import DamagedArtefactError
from transmiter_cli.errors import TransmiterError, is_out_of_memory
from transmiter_cli.method import embeddings as embeddings_module
from transmiter_cli.method import folds
from transmiter_cli.method.embeddings import InvalidTensorError, are_probabilities
from transmiter_cli.method.linear import discriminant
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.per_image import zero_shot_class_logits

TRAIN, TEST = slice(0, 300), slice(300, None)


@pytest.fixture(scope="module")
def fitted(world: World) -> tm.Artefact:
    names = [f"class {i}" for i in range(world.classes)] + [f"word {i}" for i in range(60)]
    return tm.fit(world.part(world.weak, TRAIN), world.finetuned_logits[TRAIN], names, batch_size=32)


def transfer(world: World, fitted: tm.Artefact, method, **options) -> tm.Artefact:
    weak, strong = world.part(world.weak, TRAIN), world.part(world.strong, TRAIN)
    given = {} if method == "adapter" else {"finetuned_logits": world.finetuned_logits[TRAIN]}
    return tm.transfer(fitted, weak, strong, method, **given, **options)


def test_the_whole_job_on_tensors(world: World, fitted: tm.Artefact):
    transferred, ridge = (transfer(world, fitted, method) for method in ("adapter", "ridge"))
    refined = tm.refine(transferred, world.strong.images[:60], world.labels[:60], learning_rate=1e-3)
    with pytest.raises(ValueError, match="not what was refined: give all labels at once"):
        tm.refine(refined, world.strong.images[:60], world.labels[:60])
    rows = tm.evaluate(
        world.labels[TEST],
        weak=world.part(world.weak, TEST),
        finetuned_logits=world.finetuned_logits[TEST],
        strong=world.part(world.strong, TEST),
        fitted=fitted,
        transferred={"transferred": transferred, "ridge": ridge, "refined": refined},
        weak_parameters=1000,
    )
    assert list(rows) == [
        "weak",
        "weak_finetuned",
        "strong",
        "eft_0.5",
        "eft",
        "eft_1.5",
        "product",
        "direct",
        "transferred",
        "ridge",
        "refined",
    ]
    assert rows["weak_finetuned"].top1 > rows["strong"].top1
    assert rows["transferred"].top1 > rows["strong"].top1 + 0.1
    assert rows["ridge"].top1 > rows["strong"].top1 + 0.1
    assert all(row.low <= row.top1 <= row.high for row in rows.values())
    assert (rows["transferred"].labels, rows["transferred"].gradients) == (False, False)
    assert rows["refined"].labels
    assert rows["refined"].gradients
    labelled = tm.refine(ridge, world.strong.images[:60], world.labels[:60])
    few = replace(world.strong, images=world.strong.images[:60])
    assert tm.refine(ridge, few, world.labels[:60]).details == labelled.details
    assert tm.self_train(ridge, few).details == tm.self_train(ridge, few.images).details
    row = tm.evaluate(world.labels, strong=world.strong, transferred={"refined": labelled})["refined"]
    assert (row.labels, row.gradients) == (True, False)
    assert (rows["eft"].parameters, rows["ridge"].parameters) == (2000, 0)


def test_eft_is_the_combination_of_the_three_models(world: World):
    weak, strong, teacher = world.part(world.weak, TEST), world.part(world.strong, TEST), world.finetuned_logits[TEST]
    rows = tm.evaluate(world.labels[TEST], weak=weak, finetuned_logits=teacher, strong=strong)
    classes = world.classes
    expected = zero_shot_logits(strong)[:, :classes].log_softmax(-1) + teacher.log_softmax(-1)
    expected -= zero_shot_logits(weak)[:, :classes].log_softmax(-1)
    assert rows["eft"].top1 == pytest.approx((expected.argmax(-1) == world.labels[TEST]).double().mean().item())


@pytest.mark.parametrize("method", ["adapter", "ridge", "discriminant"])
def test_an_artefact_survives_the_disk_byte_for_byte(world: World, fitted: tm.Artefact, method, tmp_path):
    artefact = transfer(world, fitted, method)
    artefact.save(tmp_path / "a.safetensors")
    loaded = tm.load(tmp_path / "a.safetensors")
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] in (
        ["a.safetensors", "b.safetensors"],
        ["b.safetensors", "a.safetensors"],
    )
    logits, images = zero_shot_logits(world.strong), world.strong.images
    # Other addresses in memory may round a product otherwise.
    torch.testing.assert_close(loaded(logits, images), artefact(logits, images), atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.class_logits(images), artefact(logits, images))
    assert loaded.class_names == tuple(f"class {i}" for i in range(world.classes))
    assert loaded.details == json.loads(json.dumps(artefact.details))


def test_self_training_needs_a_transferred_linear_classifier_and_ten_images(world: World, fitted: tm.Artefact):
    images = world.strong.images[TRAIN]
    ridge = transfer(world, fitted, "ridge")
    for wrong in (fitted, transfer(world, fitted, "adapter"), tm.self_train(ridge, images)):
        with pytest.raises(ValueError, match="self_train needs what transfer made"):
            tm.self_train(wrong, images)
    for count in (0, 1, 9):
        with pytest.raises(InvalidTensorError, match=f"10 different images at least, not {count}"):
            tm.self_train(ridge, images[:count])


def test_self_training_keeps_no_word_on_labels_and_says_what_it_saw(world: World, fitted: tm.Artefact):
    ridge = transfer(world, fitted, "ridge")
    found = tm.self_train(ridge, world.strong.images[TEST])
    rows = tm.evaluate(world.labels[TEST], strong=world.part(world.strong, TEST), transferred={"self_trained": found})
    row = rows["self_trained"]
    assert (row.labels, row.gradients, row.parameters, row.models) == (False, False, 0, 0)
    assert row.top1 > rows["strong"].top1 + 0.1
    seen = found.details["self_train"]
    assert seen["images"] == len(world.labels[TEST])
    assert seen["missing"] == []
    assert 0 <= seen["changed"] < 0.2


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_fit_transfer_and_refine_twice_give_the_same_bytes(world: World, basis, tmp_path):
    written: list[dict[str, bytes]] = []
    for number in range(2):
        fitted = tm.fit(world.weak, world.finetuned_logits, basis=basis, epochs=2)
        moved = tm.transfer(fitted, world.weak, world.strong)
        ridge = tm.transfer(fitted, world.weak, world.strong, "ridge", finetuned_logits=world.finetuned_logits)
        refined = tm.refine(moved, world.strong.images[:60], world.labels[:60], epochs=3)
        steps = {"fit": fitted, "transfer": moved, "ridge": ridge, "refine": refined}
        steps["self_train"] = tm.self_train(ridge, world.strong.images)
        for name, artefact in steps.items():
            artefact.save(tmp_path / str(number) / name)
        written.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
        torch.rand(5)  # a user's own draws in between change nothing
    assert written[0] == written[1]
    assert len(written[0]) == 5


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that is made; views of what is given are not made."""

    def __init__(self, *given: torch.Tensor) -> None:
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in {0, *self.given}:
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


def test_no_step_holds_a_matrix_of_the_vocabulary_squared_or_of_all_logits():
    """Every tensor that fit, transfer and the answers make is measured; none has N x M numbers, let alone M x M."""
    images, words, classes = 300, 3000, 200
    weak, strong = (random_embeddings(images, words, width, width) for width in (16, 24))
    teacher = torch.randn(images, classes, generator=torch.Generator().manual_seed(0))
    with Largest() as seen, patch.object(embeddings_module, "BLOCK", 8):
        fitted = tm.fit(weak, teacher, batch_size=32, epochs=1)
        tm.transfer(fitted, weak, strong).class_logits(strong.images[:100])
        tm.transfer(fitted, weak, strong, "ridge", finetuned_logits=teacher).class_logits(strong.images[:100])
    assert len(fitted.correction.basis) <= 16
    assert 0 < seen.numbers <= images * words // 3


def test_the_discriminant_holds_no_matrix_of_all_images_and_classes():
    """None but the teacher's own, which is given; neither does self-training, whose images are given."""
    images, classes = 2000, 200
    weak, strong = (random_embeddings(images, 300, width, width) for width in (16, 24))
    fitted = tm.fit(weak, teacher := 10 * zero_shot_class_logits(strong, classes), epochs=1)
    limits = [
        patch.object(embeddings_module, "BLOCK", 64),
        patch.object(embeddings_module, "CHECKED", 64),
        patch.object(discriminant, "NUMBERS", 2**16),
        patch.object(folds, "NUMBERS", 2**16),
    ]
    with limits[0], limits[1], limits[2], limits[3], Largest(teacher, weak.images, strong.images) as seen:
        moved = tm.transfer(fitted, weak, strong, "discriminant", finetuned_logits=teacher)
        tm.self_train(moved, strong.images)
    assert 0 < seen.numbers <= images * classes // 3


def test_an_adapter_is_given_no_teacher(world: World, fitted: tm.Artefact):
    """As where the method was forgotten: what was given would be ignored."""
    teacher = tm.Teacher(world.finetuned_logits, world.weak)
    for name, given in (("finetuned_logits", world.finetuned_logits), ("teachers", [teacher]), ("teachers", teacher)):
        with pytest.raises(ValueError, match=f"{name} are for method='discriminant' or 'ridge'; 'adapter' needs none"):
            tm.transfer(fitted, world.weak, world.strong, **{name: given})


def test_the_verdict_goes_with_a_discriminant_and_what_is_made_of_it(world: World, fitted: tm.Artefact, tmp_path: Path):
    moved = transfer(world, fitted, "discriminant")
    moved.save(tmp_path / "a.safetensors")
    later = [tm.self_train(moved, world.strong), tm.refine(moved, world.strong, world.labels)]
    for one in (moved, tm.load(tmp_path / "a.safetensors"), *later):
        assert one.verdict == moved.details["transfer"]["verdict"]
        assert one.verdict["verdict"] == "helps"
    table = (Path(__file__).parents[1] / "docs/using.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in table for key in moved.verdict), "each key is described"
    assert not any(one.verdict for one in (fitted, *(transfer(world, fitted, one) for one in ("adapter", "ridge"))))


def test_strengths_are_chosen_by_default(world: World, fitted: tm.Artefact):
    for method, name in (("adapter", "reg"), ("ridge", "rho")):
        usual = transfer(world, fitted, method)
        assert usual.details["transfer"] == transfer(world, fitted, method, **{name: "auto"}).details["transfer"]
        assert name in usual.details["transfer"]


def test_half_precision_embeddings_work(world: World, fitted: tm.Artefact):
    weak, strong = (
        tm.Embeddings(model.images.half(), model.texts.half(), model.logit_scale)
        for model in (world.weak, world.strong)
    )
    whole = transfer(world, fitted, "adapter")
    half = tm.transfer(fitted, world.part(weak, TRAIN), world.part(strong, TRAIN))
    same = (
        (half.class_logits(strong.images).argmax(-1) == whole.class_logits(world.strong.images).argmax(-1))
        .float()
        .mean()
    )
    assert same > 0.98


def test_calls_that_cannot_be_right_are_refused(world: World, fitted: tm.Artefact):
    logits = zero_shot_logits(world.strong)
    with pytest.raises(ValueError, match="6 columns for a vocabulary of 66"):
        fitted(logits[:, :6])
    ridge = transfer(world, fitted, "ridge")
    with pytest.raises(ValueError, match="classifies image embeddings"):
        ridge(logits)
    with pytest.raises(ValueError, match="finetuned_logits"):
        tm.transfer(fitted, world.weak, world.strong, "ridge")
    teacher = tm.Teacher(world.finetuned_logits, world.weak)
    with pytest.raises(ValueError, match="takes one fine-tuned model, not 2"):
        tm.transfer(fitted, world.weak, world.strong, "ridge", teachers=[teacher, teacher])
    head = torch.full((world.classes, world.weak.images.shape[1]), torch.nan)
    with pytest.raises(InvalidTensorError, match="the weights of the fine-tuned head hold NaN"):
        tm.transfer(fitted, world.weak, world.strong, "discriminant", teachers=[replace(teacher, head=head)])
    with pytest.raises(ValueError, match="starts from a fitted adapter"):
        tm.transfer(ridge, world.weak, world.strong)
    with pytest.raises(ValueError, match="must be a finite number above 0, or 'auto'"):
        tm.transfer(fitted, world.weak, world.strong, reg=0.0)
    with pytest.raises(ValueError, match="no strong model"):
        tm.transfer_all(fitted, world.weak, [], [1.0])
    with pytest.raises(ValueError, match="no strength"):
        tm.transfer_all(fitted, world.weak, world.strong, [])
    assert [len(each) for each in tm.transfer_all(fitted, world.weak, world.strong, 1.0)] == [1]
    one = [world.part(model, slice(0, 1)) for model in (world.weak, world.strong)]
    for method in ("adapter", "ridge", "discriminant"):
        with pytest.raises(InvalidTensorError, match="two images are needed, got 1"):
            tm.transfer(fitted, *one, method, finetuned_logits=world.finetuned_logits[:1])
    with pytest.raises(InvalidTensorError, match="3 vocabulary names for 66"):
        tm.fit(world.weak, world.finetuned_logits, ["a", "b", "c"])
    with pytest.raises(InvalidTensorError, match="the fine-tuned logits have 5 classes"):
        tm.transfer(fitted, world.weak, world.strong, "ridge", finetuned_logits=world.finetuned_logits[:, :5])
    with pytest.raises(InvalidTensorError, match="class indices from 0 to 5; there is 6 in row 1"):
        tm.refine(tm.transfer(fitted, world.weak, world.strong), world.strong.images[:2], torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="not what fit did"):
        tm.refine(fitted, world.weak.images[:2], torch.tensor([0, 1]))
    with pytest.raises(InvalidTensorError, match="the image embeddings have shape"):
        ridge(logits, world.strong.images[:, :5])
    with pytest.raises(InvalidTensorError, match="the text embeddings have shape"):
        tm.evaluate(world.labels, strong=world.weak, transferred={"x": tm.transfer(fitted, world.weak, world.strong)})
    turned = replace(world.strong, texts=world.strong.texts.roll(1, 1))
    with pytest.raises(InvalidTensorError, match="not those of the model that this was made for"):
        ridge.adapt(turned)
    other_templates = world.strong.texts + 0.5 * world.strong.texts.roll(1, 1)
    assert len(ridge.adapt(replace(world.strong, texts=other_templates))) == len(world.strong)
    with pytest.raises(ValueError, match="not of stage 'strong'"):
        tm.evaluate(world.labels, strong=world.strong, fitted=ridge)
    with pytest.raises(InvalidTensorError, match=r"labels have shape \(3,\) for 4 images"):
        tm.evaluate(torch.tensor([0, 1, 2]), strong=random_embeddings(4, 5, 3, 0))


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("tm.Embeddings(array, tensor, 1.0)", "image embeddings"),
        ("tm.fit(tm.Embeddings(tensor, tensor, 1.0), array)", "the fine-tuned logits"),
        ("tm.self_train(ridge, array)", "image embeddings"),
        ("ridge(array)", "the logits"),
        ("ridge(tensor, array)", "the image embeddings"),
        ("tm.evaluate(array[:, 0], strong=tm.Embeddings(tensor, tensor, 1.0))", "labels"),
    ],
)
def test_arrays_of_numpy_are_refused_by_name(call: str, what: str):
    """In a process of its own: here, annotations are checked before the code sees a value."""
    code = f"""
import numpy, torch, transmiter_cli as tm
array, tensor = numpy.ones((4, 3)), torch.ones(4, 3)
model = tm.Embeddings(torch.eye(4), torch.eye(4)[:3], 1.0)
logits = 9 * torch.eye(4)[:, :2] - 4
ridge = tm.transfer(tm.fit(model, logits, epochs=1), model, model, "ridge", finetuned_logits=logits)
{call}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"InvalidTensorError: {what} must be a torch tensor, not numpy.ndarray." in done.stderr


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            "tm.transfer(fitted, model, model, 'ridge', finetuned_logits=torch.randn(9))",
            "InvalidTensorError: the fine-tuned logits must be images x classes; got shape (9,).\n"
            "Try: of one score z for two classes, torch.stack([-z, z], 1)",
        ),
        (
            "tm.transfer(fitted, model, model, reg=None)",
            "ValueError: reg must be a finite number above 0, or 'auto', not None.",
        ),
        (
            "tm.transfer_all(fitted, model, [model], ['auto'])",
            "ValueError: transfer_all takes numbers, not 'auto'; transfer does, with one strong model.",
        ),
    ],
)
def test_wrong_arguments_of_transfer_are_refused_by_name(call: str, error: str):
    """In a process of its own: here, annotations are checked before the code sees a value."""
    code = (
        "import torch, transmiter_cli as tm; model = tm.Embeddings(torch.randn(9, 4), torch.randn(5, 4), 1.0);"
        f"fitted = tm.fit(model, torch.randn(9, 3), epochs=1); {call}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert error in done.stderr


WRONG_CALLS = {
    "tm.evaluate(labels, strong=model, transferred=moved)": "transferred is artefacts by the names of their rows, not",
    "tm.evaluate(labels, strong=model, transferred={'a': 1})": "artefacts by the names of their rows, not builtins.int",
    "tm.evaluate(labels, strong=model, eft=(-1,))": "a strength of EFT must be a finite number of at least 0, not -1",
    "tm.evaluate(labels, weak=model, transferred={'a': moved})": "ValueError: fitted, transferred and",
    "tm.evaluate(labels, strong=model, weak=model, finetuned_logits=logits[:5])": "given [5, 9] images",
    "tm.evaluate(labels, strong=model, finetuned_logits=logits[0])": "must be images x classes; got shape (3,)",
    "tm.evaluate(labels, strong=model.images)": "strong must be Embeddings, not torch.Tensor",
    "tm.evaluate(labels, strong=model, weak_models=-1)": "ValueError: weak_models must be a whole number",
    "tm.evaluate(labels, strong=model, weak_parameters='x')": "ValueError: weak_parameters must be a whole number",
    "tm.evaluate(labels, strong=model, transferred={1: moved})": "ValueError: transferred is artefacts by the names",
    "tm.evaluate(torch.tensor(1), strong=model)": "labels have shape () for 9 images",
    "tm.evaluate(labels.to(torch.uint16), strong=model)": "must be class indices, integers, not torch.uint16",
    "tm.evaluate_unlabelled(weak=model.only(labels[:0]))": "there are no images",
    "tm.fit(model.images, logits)": "weak must be Embeddings, not torch.Tensor",
    "tm.fit(model, logits, 'abcde')": "a sequence of names, not the single text 'abcde'",
    "tm.transfer(fitted, model, model.images)": "strong must be Embeddings, not torch.Tensor",
    "tm.transfer('weak.safetensors', model, model)": "ValueError: transfer starts from a fitted adapter",
    "tm.transfer(fitted, model, model, 'discriminant', teachers=[logits])": "ValueError: teachers are Teacher(",
    "tm.transfer(fitted, model, model, 'discriminant', teachers=[tm.Teacher(logits, logits)])": "teacher's weak model",
    "tm.Embeddings(model.images.to(torch.float8_e4m3fn), model.texts, 1.0)": "of 16 bits at least",
    "tm.transfer(fitted, model, model, opaque_names=True)": "opaque_names is for method 'discriminant', not 'adapter'",
    "tm.transfer(fitted, model, model, 'ridge', reg=1.0, finetuned_logits=logits)": "reg is for method 'adapter'",
    "tm.transfer(fitted, model, model, 'discriminant', rho=1.0, finetuned_logits=logits)": "rho is for method 'ridge'",
    "tm.transfer(fitted, model, model, reg=10**400)": "reg must be a finite number above 0",
    "tm.Embeddings(torch.randn(9, 0), torch.randn(5, 0), 1.0)": "their width is 0",
    "tm.Embeddings(model.images, model.texts, None)": "the logit scale must be positive and finite, not None",
    "tm.Embeddings(model.images, model.texts, torch.nn.Parameter(torch.tensor(4.6)))": "its logarithm",
    "tm.Embeddings(model.images, model.texts, torch.ones(2))": "the logit scale must be positive and finite",
    "tm.Embeddings(model.images.to_sparse(), model.texts, 1.0)": "dense, not torch.sparse_coo. Try: .to_dense()",
    "tm.Embeddings(model.images.to('meta'), model.texts, 1.0)": "on device 'meta', which holds no numbers",
    "tm.fit(model, logits.to_sparse())": "the fine-tuned logits must be dense",
    "tm.fit(model, logits.int())": "floating-point numbers of 16 bits at least, not torch.int32.",
    "tm.fit(model, logits, 5)": "ValueError: the vocabulary is a sequence of names, not builtins.int",
    "tm.fit(model, logits, progress=3)": "ValueError: progress must be a function of two numbers, not builtins.int",
    "tm.refine(moved, model, labels, progress=3)": "ValueError: progress must be a function",
    "tm.refine(model, moved, labels)": "ValueError: transferred is an Artefact, as fit, transfer and load return",
    "tm.refine(None, model, labels)": "as fit, transfer and load return it, not builtins.NoneType",
    "tm.self_train('a.safetensors', model)": "transferred is an Artefact, as fit, transfer and load return it, not",
    "tm.self_train(fitted, other)": "ValueError: self_train needs what transfer made",
    "tm.refine(fitted, other, labels)": "ValueError: refine needs what transfer or self_train returned",
    "tm.refine(moved, model.images[0], labels[:1])": "image embeddings must be a matrix, one row each; got shape (4,)",
    "fitted(model)": "the logits must be a torch tensor, not transmiter_cli.method.embeddings.Embeddings. Try: adapt(",
    "fitted(words[0])": "the logits must be a matrix, one row each; got shape (5,)",
    "fitted(words[None])": "the logits must be a matrix, one row each; got shape (1, 9, 5)",
    "fitted(words.int())": "the logits must be floating-point numbers",
    "fitted(words * torch.nan)": "the logits hold NaN",
    "moved(words, model)": "the image embeddings must be a torch tensor, not transmiter_cli",
    "moved(words, model.images.int())": "the image embeddings must be floating-point numbers",
    "moved(words, model.images * torch.nan)": "the image embeddings hold NaN",
    "moved.to('gpu')": "TransmiterError: an artefact cannot be moved to 'gpu'",
    "moved.to('cuda:77')": "TransmiterError: an artefact cannot be moved to 'cuda:77'",
    "model.only('ab')": "rows are whole numbers one after the other, a mask or a slice, not builtins.str",
    "model.only([0.5])": "a mask or a slice, not torch.float32 of shape (1,)",
    "model.only(3)": "a mask or a slice, not torch.int64 of shape ()",
    "tm.Teacher('x', 'y')": "the fine-tuned logits must be a torch tensor, not builtins.str",
    "tm.Teacher(logits, 'y')": "a teacher's weak model must be Embeddings, not builtins.str",
    "tm.Teacher(logits, model, 'z')": "the fine-tuned head must be a torch tensor, not builtins.str",
    "tm.zero_shot_logits(model.images)": "a model must be Embeddings, not torch.Tensor",
    "tm.transfer(fitted, model, model, teachers=None, method='ridge')": "ValueError: teachers are Teacher(",
    "tm.transfer_all(fitted, model, None, 1.0)": "strong must be Embeddings, not builtins.NoneType",
    "tm.transfer_all(fitted, model, model, None)": "reg must be a finite number above 0, not None",
    "tm.evaluate(labels, strong=model, classes=3.0)": "classes must be a whole number of at least 1, not 3.0",
    "tm.evaluate(labels, strong=model, classes='3')": "classes must be a whole number of at least 1, not '3'",
    "tm.evaluate(labels, strong=model, base=3)": "classes are whole numbers, one after the other. Try: range(10) for",
    "tm.evaluate(labels, strong=model, fitted='x')": "ValueError: fitted is an Artefact, as fit, transfer and load",
    "tm.evaluate(labels, strong=model, eft='a')": "a strength of EFT must be a finite number of at least 0, not 'a'",
    "tm.evaluate(labels, strong=model, transfered={})": "evaluate takes no 'transfered'. Did you mean 'transferred'",
    "tm.evaluate(labels, strong=model, bas=[1])": "TypeError: evaluate takes no 'bas'. Did you mean 'base'?",
    "tm.evaluate_unlabelled(stong=model)": "TypeError: evaluate_unlabelled takes no 'stong'. Did you mean 'strong'?",
    "tm.evaluate(labels > 1, strong=model)": "integers, not torch.bool. Try: the index of each image's class",
    "tm.evaluate(labels.float(), strong=model)": "integers, not torch.float32. Try: labels.long()",
    "tm.evaluate(torch.eye(9), strong=model)": "for 9 images. Try: labels.argmax(-1), of one-hot labels",
    "tm.evaluate(labels - 1, strong=model)": "must be class indices from 0 to 4; there is -1 in row 0",
    "tm.fit(model, masked)": "infinite values (first in row 3). Try: -100 in place of -inf",
    "tm.evaluate(labels, strong=model, finetuned_logits=masked)": "row 3). Try: -100 in place of -inf",
}


def test_wrong_arguments_are_refused_by_name():
    """In a process of its own: here, annotations are checked before the code sees a value."""
    code = f"""
import torch, transmiter_cli as tm
model = tm.Embeddings(torch.randn(9, 4), torch.randn(5, 4), torch.tensor([1.0]))
logits, labels = torch.randn(9, 3), torch.arange(9) % 3
masked = logits.clone()
masked[3, 0] = -torch.inf
words, other = tm.zero_shot_logits(model), tm.Embeddings(torch.randn(9, 6), torch.randn(5, 6), 1.0)
fitted = tm.fit(model, logits, epochs=1)
moved = tm.transfer(fitted, model, model, "discriminant", teachers=tm.Teacher(logits, model))
for call in {list(WRONG_CALLS)}:
    try:
        print(eval(call))
    except Exception as error:
        said = " ".join([str(error), *getattr(error, "__notes__", [])])
        print(type(error).__name__ + ": " + said.replace(chr(10), " "))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for (call, said), found in zip(WRONG_CALLS.items(), done.stdout.splitlines(), strict=True):
        assert said in found, call
        assert found.startswith(("InvalidTensorError", "ValueError", "TypeError: evaluate", "TransmiterError")), call


def test_only_minus_infinity_is_said_to_be_a_mask(world: World):
    for wrong, fix in ((torch.nan, None), (torch.inf, None), (-torch.inf, "-100 in place of -inf")):
        logits = world.finetuned_logits.clone()
        logits[3, 0] = wrong
        with pytest.raises(InvalidTensorError) as told:
            tm.fit(world.weak, logits)
        assert (told.value.fix or "").startswith(fix or "")
        assert bool(told.value.fix) == bool(fix)


def test_some_of_the_images_may_be_told_in_any_way(world: World):
    teacher = tm.Teacher(world.finetuned_logits, world.weak)
    mask = torch.arange(400) < 3
    ways = (
        [0, 1, 2],
        range(3),
        slice(3),
        mask,
        mask.numpy(),
        torch.arange(3).numpy(),
        (row for row in range(3)),
        torch.arange(400).numpy()[::-1][-3:][::-1],
    )
    for rows in ways:
        found = teacher.only(rows)  # type: ignore[arg-type]
        assert torch.equal(found.finetuned, world.finetuned_logits[:3])
        assert torch.equal(found.weak.images, world.weak.images[:3])
    assert len(world.weak.only([])) == 0
    wrong = {
        mask.byte(): "may be a mask or numbers",
        mask[:9]: "the mask has 9 entries for 400 images",
        torch.tensor([0, 400]): "rows from 0 to 400 of 400 images",
        torch.tensor([-401]): "rows from -401 to -401",
        mask.to_sparse(): "a mask or a slice",
    }
    for rows, said in wrong.items():
        with pytest.raises(tm.InvalidTensorError, match=said):
            teacher.only(rows)


def test_a_single_strength_of_eft_is_enough(world: World):
    parts = {"weak": world.weak, "strong": world.strong, "finetuned_logits": world.finetuned_logits}
    assert "eft_0.3" in tm.evaluate(world.labels, **parts, eft=0.3)


def test_embeddings_may_carry_gradients_or_none_be_allowed(world: World, fitted: tm.Artefact):
    """As straight from an encoder, or in a service that wraps all it does in no_grad."""
    weak, strong = (
        tm.Embeddings(model.images.clone().requires_grad_(), model.texts.clone().requires_grad_(), model.logit_scale)
        for model in (world.weak, world.strong)
    )
    teacher = world.finetuned_logits.clone().requires_grad_()

    def job(weak: tm.Embeddings, strong: tm.Embeddings, teacher: torch.Tensor) -> torch.Tensor:
        fitted = tm.fit(weak, teacher, epochs=2)
        moved = {
            way: tm.transfer(fitted, weak, strong, way, **({} if way == "adapter" else {"finetuned_logits": teacher}))
            for way in ("adapter", "ridge", "discriminant")
        }
        refined = tm.refine(moved["adapter"], strong.images[:60], world.labels[:60], epochs=2)
        found = torch.stack([one.class_logits(strong.images) for one in (*moved.values(), refined)])
        assert not found.requires_grad
        return found

    plain = job(world.weak, world.strong, world.finetuned_logits)
    with torch.no_grad():
        assert torch.equal(job(world.weak, world.strong, world.finetuned_logits), plain)
    assert torch.equal(job(weak, strong, teacher), plain)


def test_a_logit_scale_may_be_the_parameter_of_a_model():
    """In a process where no type is checked, as for users, and a warning is an error."""
    code = (
        "import torch, transmiter_cli as tm; learned = torch.nn.Parameter(torch.tensor(2.0));"
        "print(tm.Embeddings(torch.ones(2, 3), torch.ones(4, 3), 2 * learned).logit_scale)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "4.0\n", done.stderr


def test_products_follow_what_is_set_for_all_of_torch_after_a_call_as_before_it():
    """In a process of its own: the settings are torch's for good."""
    code = (
        "import torch, transmiter_cli as tm; model = tm.Embeddings(torch.eye(3), torch.eye(3), 1.0);"
        "products = torch.backends.cuda.matmul; torch.backends.fp32_precision = 'tf32'; tm.zero_shot_logits(model);"
        "first = products.fp32_precision; torch.backends.fp32_precision = 'ieee'; print(first, products.fp32_precision)"
    )
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("this torch has no such setting")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "tf32 ieee\n", done.stderr


class NoneOfThem(TorchDispatchMode):
    """Fails where a tensor has a dtype that no input has: a caller's default, which numbers would take."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        assert all(one.dtype != self.dtype for one in tree_flatten(made)[0] if isinstance(one, torch.Tensor)), func
        return made


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_a_callers_inference_mode_and_defaults_change_nothing(world: World, basis: Literal["compact", "paper"]):
    weak, strong = world.part(world.weak, TRAIN), world.part(world.strong, TRAIN)
    labels, logits = world.labels[TRAIN], world.finetuned_logits[TRAIN]

    def job() -> list[torch.Tensor]:
        fitted = tm.fit(weak, logits, epochs=1, basis=basis)
        found: list[torch.Tensor] = []
        for method in ("adapter", "discriminant"):
            given = {"finetuned_logits": logits} if method != "adapter" else {}
            moved = tm.transfer(fitted, weak, strong, method, **given)
            more = {"epochs": 1} if method == "adapter" else {}
            later = [tm.refine(moved, strong, labels, **more), *([tm.self_train(moved, strong)] if given else [])]
            found += [one.class_logits(strong.images) for one in (moved, *later)]
        return found

    expected = job()
    with torch.inference_mode():
        inside = job()
    torch.set_default_dtype(torch.float16)
    try:
        with NoneOfThem(torch.float16):
            half = job()
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(half, expected, atol=0, rtol=0)
    with torch.device("meta"):
        elsewhere = job()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            coarse = job()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    for found in (inside, elsewhere, coarse):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_threads_get_the_same_answers_and_leave_the_process_as_it_was(world: World, tmp_path: Path):
    """Initial weights come from no generator that threads share, and settings are restored by the last to end."""
    weak, logits = world.part(world.weak, TRAIN), world.finetuned_logits[TRAIN]
    expected = tm.fit(weak, logits, epochs=1)
    expected.save(tmp_path / "weak.safetensors")
    torch.manual_seed(3)
    drawn = torch.rand(5)
    torch.manual_seed(3)
    torch.set_float32_matmul_precision("medium")
    try:
        with ThreadPoolExecutor(4) as pool:
            fits = [pool.submit(tm.fit, weak, logits, epochs=1) for _ in range(8)]
            loads = [pool.submit(tm.load, tmp_path / "weak.safetensors") for _ in range(8)]
            found = [one.result().class_logits(weak.images) for one in fits + loads]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(torch.rand(5), drawn)
    for one in found:
        torch.testing.assert_close(one, expected.class_logits(weak.images), atol=0, rtol=0)


def test_all_names_can_be_imported_at_once():
    names: dict[str, Any] = {}
    exec("from transmiter_cli import *", names)
    assert {"fit", "transfer", "evaluate", "Embeddings", "TransmiterError"} <= names.keys()
    for kind in (tm.FitSettings, tm.RefineSettings, tm.Teacher):
        about = str(kind.__doc__).replace(", ", ": ")
        assert all(f" {field.name}: " in about for field in fields(kind)), "all fields are described"


def test_type_checkers_heed_the_annotations_of_the_package():
    assert (Path(tm.__file__).parent / "py.typed").is_file()


def test_a_row_equals_one_that_took_another_time(world: World):
    row = tm.evaluate(world.labels, strong=world.strong)["strong"]
    assert row == replace(row, seconds=row.seconds + 1)
    assert row != replace(row, top1=row.top1 / 2)


def test_inputs_show_their_shapes_and_no_numbers(world: World):
    said = "<Embeddings: 400 images, 66 texts, 32 wide, scale 20>"
    assert repr(world.weak) == said
    teacher = tm.Teacher(world.finetuned_logits, world.weak)
    assert repr(teacher) == f"<Teacher: 400 images, 6 classes; weak {said}>"
    assert "6 classes, head 6 x 32; weak" in repr(replace(teacher, head=torch.ones(6, 32)))


@pytest.mark.parametrize("method", ["adapter", "ridge"])
def test_a_called_artefact_cuts_gradients(world: World, fitted: tm.Artefact, method: str):
    images = world.strong.images.clone().requires_grad_()
    logits = zero_shot_logits(world.strong).requires_grad_()
    assert not transfer(world, fitted, method)(logits, images).requires_grad


@pytest.mark.parametrize("method", ["adapter", "ridge"])
def test_a_loaded_artefact_is_no_longer_its_file(world: World, fitted: tm.Artefact, tmp_path: Path, method):
    transfer(world, fitted, method).save(tmp_path / "a.safetensors")
    loaded = tm.load(tmp_path / "a.safetensors")
    before = loaded.class_logits(world.strong.images), loaded.texts.clone()
    size = (tmp_path / "a.safetensors").stat().st_size
    with (tmp_path / "a.safetensors").open("r+b") as file:
        file.write(bytes(size))
    assert torch.equal(loaded.class_logits(world.strong.images), before[0])
    assert torch.equal(loaded.texts, before[1])


@pytest.mark.parametrize("device", ["cuda:77", "gpu"])
def test_a_device_that_is_not_there_is_told(fitted: tm.Artefact, tmp_path: Path, device: str):
    fitted.save(tmp_path / "a.safetensors")
    with pytest.raises(TransmiterError, match=f"cannot be loaded to '{device}'"):
        tm.load(tmp_path / "a.safetensors", device)


def test_models_on_different_devices_are_told(world: World, fitted: tm.Artefact):
    elsewhere = replace(world.strong)
    object.__setattr__(elsewhere, "images", world.strong.images.to("meta"))
    teacher = tm.Teacher(world.finetuned_logits, elsewhere)
    for method, strong, teachers in (("adapter", elsewhere, []), ("discriminant", world.strong, [teacher])):
        with pytest.raises(InvalidTensorError, match="two models are on different devices"):
            tm.transfer(fitted, world.weak, strong, method, teachers=teachers)


def test_probabilities_are_refused_in_place_of_logits_and_their_logarithms_are_not(world: World, fitted: tm.Artefact):
    """As scikit-learn's predict_proba gives them: an adapter that is fitted to them learns next to nothing."""
    probabilities = world.finetuned_logits.softmax(-1)
    for call in (
        lambda logits: tm.fit(world.weak, logits, epochs=1),
        lambda logits: tm.transfer(fitted, world.weak, world.strong, "discriminant", finetuned_logits=logits),
    ):
        with pytest.raises(InvalidTensorError, match="the fine-tuned logits are probabilities"):
            call(probabilities)
        call(probabilities.clamp_min(1e-9).log())
    with pytest.raises(InvalidTensorError, match=r"are probabilities.*\nTry: their logarithms"):
        tm.evaluate(world.labels, weak=world.weak, strong=world.strong, finetuned_logits=probabilities)


def test_texts_that_are_no_classes_are_not_answered_where_it_is_told_how_many_are(world: World):
    few = tm.evaluate(world.labels, strong=world.strong, classes=world.classes)["strong"]
    known = tm.evaluate(world.labels, strong=world.strong, finetuned_logits=world.finetuned_logits)["strong"]
    assert (few.top1, few.nll) == (known.top1, known.nll)
    assert few.top1 > tm.evaluate(world.labels, strong=world.strong)["strong"].top1
    for wrong, said in (
        (0, "at least 1, not 0"),
        (99, "no 99 classes among 66"),
        (world.classes + 1, r"\[6, 7\] classes; they must"),
    ):
        with pytest.raises(ValueError, match=said):
            tm.evaluate(world.labels, strong=world.strong, finetuned_logits=world.finetuned_logits, classes=wrong)


@pytest.mark.parametrize("call", ["fit", "refine"])
def test_settings_that_there_are_not_are_named_beside_those_that_there_are(
    world: World, fitted: tm.Artefact, call: str
):
    with pytest.raises(TypeError, match=r"no setting 'epoch', only .*epochs, "):
        tm.fit(world.weak, world.finetuned_logits, epoch=3) if call == "fit" else tm.refine(
            tm.transfer(fitted, world.weak, world.strong, reg=1.0), world.strong, world.labels, epoch=3
        )


def test_half_precision_logits_may_have_a_large_constant(world: World, fitted: tm.Artefact):
    weak, strong = world.part(world.weak, TRAIN), world.part(world.strong, TRAIN)
    logits = world.finetuned_logits[TRAIN]
    narrow = 0.01 * (logits - logits.amin(-1, keepdim=True))
    found = [
        tm.transfer(fitted, weak, strong, "discriminant", finetuned_logits=(narrow + constant).half())
        for constant in (0.0, 8.0, 30_000.0)
    ]
    answers = [one.predictions(world.part(world.strong, TEST)) for one in found]
    assert (answers[0] == answers[1]).double().mean() > 0.97
    assert found[2].details["transfer"]["verdict"]["verdict"] == "useless teacher"


def test_logits_of_any_precision_are_adapted(world: World, fitted: tm.Artefact):
    logits = zero_shot_logits(world.weak)
    torch.testing.assert_close(fitted(logits.double()), fitted(logits))


@pytest.mark.parametrize("method", ["ridge", "discriminant"])
def test_a_constant_of_each_row_changes_nothing(world: World, fitted: tm.Artefact, method):
    weak, strong = world.part(world.weak, TRAIN), world.part(world.strong, TRAIN)
    logits = world.finetuned_logits[TRAIN].double()
    constants = 1e8 * torch.randn(len(logits), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [
        tm.transfer(fitted, weak, strong, method, finetuned_logits=narrow * logits + constant).class_logits(
            strong.images
        )
        for narrow in (1.0, 0.01)
        for constant in (0.0, constants)
    ]
    for plain, shifted in (found[:2], found[2:]):
        torch.testing.assert_close(shifted, plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["strong", "weak", "direct", "eft", "strong_finetuned"])
def test_a_transferred_artefact_takes_the_row_of_nothing_else(world: World, fitted: tm.Artefact, name: str):
    parts = {"weak": world.weak, "strong": world.strong, "fitted": fitted, "finetuned_logits": world.finetuned_logits}
    moved = tm.transfer(fitted, world.weak, world.strong, reg=1.0)
    with pytest.raises(ValueError, match=f"'{name}' in transferred is the name of another row"):
        tm.evaluate(world.labels, **parts, transferred={name: moved})


def test_embeddings_of_another_model_are_refused_everywhere(world: World, fitted: tm.Artefact):
    moved = transfer(world, fitted, "ridge")
    other = tm.Embeddings(world.strong.images, world.strong.texts.roll(1, 1), world.strong.logit_scale)
    for call in (
        lambda: moved.predictions(other),
        lambda: tm.self_train(moved, other),
        lambda: tm.refine(moved, other, world.labels),
    ):
        with pytest.raises(InvalidTensorError, match="not those of the model"):
            call()
    strange = tm.Embeddings(world.weak.images, world.weak.texts.roll(1, 1), world.weak.logit_scale)
    with pytest.raises(InvalidTensorError, match="not those of the model"):
        tm.transfer(fitted, strange, world.strong, reg=1.0)


def test_evaluation_and_artefacts_do_not_heed_a_default_device(world: World, fitted: tm.Artefact, tmp_path: Path):
    fitted.save(tmp_path / "a.safetensors")
    parts = {"weak": world.weak, "strong": world.strong, "fitted": fitted}
    expected = tm.evaluate(world.labels, **parts), tm.evaluate_unlabelled(**parts)
    with torch.device("meta"):
        again = tm.load(tmp_path / "a.safetensors")
        found = tm.evaluate(world.labels, **parts), tm.evaluate_unlabelled(**parts)
    assert torch.equal(again.correction.basis, fitted.correction.basis)
    assert found == expected


def test_copies_are_no_evidence_for_a_transfer(world: World, fitted: tm.Artefact):
    rows = torch.arange(300).repeat(4)
    thrice = tm.transfer(
        fitted,
        world.weak.only(rows),
        world.strong.only(rows),
        "discriminant",
        finetuned_logits=world.finetuned_logits[rows],
    )
    once = transfer(world, fitted, "discriminant")
    assert thrice.details["transfer"]["verdict"] == once.details["transfer"]["verdict"]
    assert torch.equal(thrice.class_logits(world.strong.images), once.class_logits(world.strong.images))


@pytest.mark.filterwarnings("ignore:std_mean")
def test_logits_of_no_images_are_no_probabilities():
    assert not are_probabilities(torch.empty(0, 3))
    assert are_probabilities(torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    assert not are_probabilities(torch.tensor([[0.5, 0.5, 0.0], [0.5, 1.5, -1.0]]))


def test_no_images_have_no_logits(world: World, fitted: tm.Artefact):
    for artefact in (fitted, transfer(world, fitted, "ridge")):
        empty = torch.empty(0, artefact.texts.shape[1])
        assert artefact.class_logits(empty).shape == (0, world.classes)
        assert len(artefact.predictions(artefact.embeddings(empty))) == 0


@pytest.mark.parametrize("method", ["adapter", "ridge"])
def test_an_artefact_moves_to_the_images(world: World, fitted: tm.Artefact, method):
    """The meta device stands for any other: it has shapes, and refuses tensors of another device."""
    artefact, images = transfer(world, fitted, method), world.strong.images.to("meta")
    with patch.object(embeddings_module, "require_finite"):
        assert artefact.class_logits(images).shape == (400, world.classes)
    assert artefact.texts.device.type == "cpu"
    assert artefact.to(artefact.texts.device) is artefact


@pytest.mark.parametrize("method", ["adapter", "ridge"])
def test_loading_draws_no_random_number(world: World, fitted: tm.Artefact, method, tmp_path):
    transfer(world, fitted, method).save(tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    tm.load(tmp_path / "a.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"batch_size": 0}, {"temperature": 0.0}], ids=str)
def test_settings_that_cannot_be_are_named(world: World, setting: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(setting)).split('_')[0]}"):
        tm.fit(world.weak, world.finetuned_logits, **setting)


def test_files_that_are_no_artefacts_are_refused(fitted: tm.Artefact, tmp_path):
    with pytest.raises(TransmiterError, match="no artefact"):
        tm.load(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "features.safetensors", {"transmiter": '{"classes": ["stage"]}'})
    for name in ("other", "features"):
        with pytest.raises(TransmiterError, match="no artefact of transmiter"):
            tm.load(tmp_path / f"{name}.safetensors")
    fitted.save(tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(TransmiterError, match="cannot be read"):
        tm.load(tmp_path / "cut.safetensors")
    whole = tmp_path / "whole.safetensors"
    fitted.save(whole)
    with safe_open(whole, "pt") as file:
        metadata = file.metadata()
    save_file({"texts": fitted.texts}, whole, metadata)
    with pytest.raises(TransmiterError, match="is damaged: it lacks 'basis'"):
        tm.load(whole)
    text = next(iter(metadata.values()))
    save_file({"texts": fitted.texts}, whole, dict.fromkeys(metadata, text.replace('"format":', '"other":')))
    with pytest.raises(TransmiterError, match="does not say which format"):
        tm.load(whole)
    save_file({"texts": fitted.texts}, whole, dict.fromkeys(metadata, text.replace('"details":', '"other":')))
    with pytest.raises(TransmiterError, match="does not say how it was made"):
        tm.load(whole)


def test_training_that_diverges_is_an_error_and_not_a_result(world: World, fitted: tm.Artefact):
    with pytest.raises(InvalidTensorError, match="diverged"):
        tm.fit(world.weak, world.finetuned_logits, learning_rate=1e30, epochs=2)
    transferred = transfer(world, fitted, "adapter")
    refined = tm.refine(transferred, world.strong.images[:60], world.labels[:60], learning_rate=1e30)
    logits = zero_shot_logits(world.strong)
    assert torch.equal(refined(logits), transferred(logits))


def test_logits_that_mean_nothing_are_not_evaluated(world: World, fitted: tm.Artefact):
    with pytest.raises(InvalidTensorError, match="NaN"):
        tm.evaluate(world.labels, finetuned_logits=torch.full_like(world.finetuned_logits, torch.nan))
    ridge = transfer(world, fitted, "ridge")
    ridge.correction.bias.data[2] = torch.nan
    with pytest.raises(InvalidTensorError, match="adapted logits"):
        ridge.predictions(world.strong)


def test_all_texts_are_classes_where_nothing_says_otherwise(world: World):
    with pytest.raises(InvalidTensorError, match="from 0 to 65"):
        tm.evaluate(torch.full((400,), 66), strong=world.strong)


def test_unknown_names_of_the_package_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = tm.nothing_such


def test_ridge_is_a_linear_classifier_and_the_adapter_is_none(world: World, fitted: tm.Artefact):
    ridge = transfer(world, fitted, "ridge")
    weight, bias = ridge.classifier()
    images = world.strong.unit_images()
    assert (weight.shape, bias.shape) == ((world.classes, images.shape[1]), (world.classes,))
    torch.testing.assert_close(
        images @ weight.T + bias, ridge(zero_shot_logits(world.strong), images), atol=1e-4, rtol=0
    )
    assert ridge.parameters_added == 0
    weight.zero_(), bias.fill_(1)
    assert ridge.classifier()[0].any(), "what is returned may be changed"
    assert not ridge.classifier()[1].any()
    with pytest.raises(ValueError, match="an adapter is no linear classifier"):
        fitted.classifier()


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_classifier_of_another_shape_is_damaged(world: World, fitted: tm.Artefact, name: str, tmp_path: Path):
    transfer(world, fitted, "ridge").save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors[f"classifier.{name}"] = tensors[f"classifier.{name}"][:-1].contiguous()
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(TransmiterError, match="is damaged: weight and bias of its classifier have shapes"):
        tm.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("method", "name", "change", "said"),
    [
        ("ridge", "texts", lambda one: one[:-1], "its tensors are of 65 words, its vocabulary has 66"),
        ("adapter", "texts", lambda one: one[:-1], "its tensors are of 65 and 66 words, its vocabulary has 66"),
        ("adapter", "adapter.basis", lambda one: one[:, :-1], "its tensors are of 65 and 66 words"),
        ("ridge", "classifier.bias", lambda one: one / 0, "classifier.bias has numbers that are not finite"),
        ("ridge", "texts", lambda one: one[0], "texts has shape (48,), and is no matrix"),
        ("adapter", "adapter.basis", lambda one: one[0, 0], "adapter.basis has shape (), and is no matrix"),
    ],
)
def test_numbers_that_do_not_belong_together_are_damage(
    world: World,
    fitted: tm.Artefact,
    method: str,
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor],
    said: str,
    tmp_path: Path,
):
    transfer(world, fitted, method).save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(DamagedArtefactError) as found:
        tm.load(tmp_path / "a.safetensors")
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("exhausted", [lambda *_: torch.empty(1 << 55), lambda *_: bytearray(1 << 55)])
def test_what_memory_does_not_hold_is_not_damaged(
    fitted: tm.Artefact, exhausted: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fitted.save(tmp_path / "a.safetensors")
    monkeypatch.setattr("transmiter_cli.artefact.read_correction", exhausted)
    with pytest.raises((MemoryError, RuntimeError)) as found:
        tm.load(tmp_path / "a.safetensors")
    assert is_out_of_memory(found.value)


def test_a_classifier_looks_at_images_alone(world: World, fitted: tm.Artefact):
    ridge = transfer(world, fitted, "ridge")
    other = replace(world.strong, logit_scale=2 * world.strong.logit_scale)
    assert torch.equal(ridge.adapt(other), ridge.adapt(world.strong))


def test_the_file_of_a_linear_method_holds_its_weight_and_bias(world: World, fitted: tm.Artefact, tmp_path: Path):
    moved = transfer(world, fitted, "discriminant")
    moved.save(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    assert set(tensors) == {"classifier.weight", "classifier.bias", "texts"}
    logits = world.strong.unit_images() @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    torch.testing.assert_close(logits, tm.load(tmp_path / "a.safetensors").adapt(world.strong))


def test_an_artefact_shows_what_it_is_and_no_numbers(world: World, fitted: tm.Artefact):
    assert repr(fitted) == "<weak adapter: 6 classes among 66 texts 32 wide>"
    assert repr(transfer(world, fitted, "ridge")) == "<strong ridge: 6 classes among 66 texts 48 wide>"


@pytest.mark.parametrize("method", ["adapter", "ridge"])
def test_an_image_that_repeats_another_one_counts_once(world: World, fitted: tm.Artefact, method):
    """Else each would be in the part that is held out and in the others."""
    transferred, images, labels = transfer(world, fitted, method), world.strong.images[:60], world.labels[:60]
    once = tm.refine(transferred, images, labels, epochs=3)
    thrice = tm.refine(transferred, images.repeat(3, 1), labels.repeat(3), epochs=3)
    assert thrice.details["refine"] == once.details["refine"]
    assert torch.equal(thrice.adapt(world.strong), once.adapt(world.strong))


def test_cross_validation_needs_two_folds(world: World, fitted: tm.Artefact):
    transferred = transfer(world, fitted, "ridge")
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2, not 1"):
        tm.refine(transferred, world.strong.images[:60], world.labels[:60], folds=1)
