"""transmiter fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import Encoding, JsonOption, RunOption, SeedOption, Selection, checked_settings
from transmiter_cli.errors import UsageError
from transmiter_cli.method.settings import AUX_WORDS, VOCABULARY_SIZE, Basis, FitSettings
from transmiter_cli.names import some

NAME = "fit"
EXAMPLE = "transmiter fit --weak demo-weak --finetuned demo-finetuned --data demo-digits --aux-words characters"


def command(
    *,
    weak: Annotated[
        str, typer.Option(help="The weak model before fine-tuning: ViT-B/32, ARCH:TAG, local-dir:PATH, ...")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Unlabelled images: a folder, with or without class folders and train/test in it; a manifest "
            "(.csv, .jsonl); a CoOp split .json; WebDataset shards (.tar); Parquet files; or torchvision:NAME."
        ),
    ],
    run: RunOption,
    selection: Selection,
    finetuned: Annotated[
        list[str] | None,
        typer.Option(
            help="The fine-tuned weak model: a checkpoint, a classifier head, logits with image ids; "
            "or `probe`, to train a linear probe on the labels of --data. Repeat it to average several. [required]",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Class names, one per line or JSON; else the data's labels. A list may name classes without images."
        ),
    ] = None,
    template: Annotated[list[str] | None, typer.Option(help="A prompt with {} for the name; may be repeated.")] = None,
    templates: Annotated[
        str | None,
        typer.Option(
            help="More prompts: `imagenet` (CLIP's 80), `simple`, CoOp's by data set (`oxford_pets`, `dtd`, ...), or a "
            "file: one per line, a JSON list, or a JSON object from class to prompts."
        ),
    ] = None,
    aux_words: Annotated[
        str, typer.Option(help="Auxiliary words: `nouns`, `imagenet`, `characters`, or a file with one per line.")
    ] = AUX_WORDS,
    vocabulary_size: Annotated[
        int, typer.Option(min=2, help="Classes and auxiliary words together.")
    ] = VOCABULARY_SIZE,
    views: Annotated[
        int, typer.Option(min=0, help="Random crops of each image to learn from, besides the image as it is.")
    ] = 0,
    basis: Annotated[
        Basis, typer.Option(help="`compact` is fast; `paper` learns a square orthogonal basis.")
    ] = FitSettings.basis,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = FitSettings.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = FitSettings.batch_size,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate.")] = FitSettings.learning_rate,
    noise: Annotated[
        float, typer.Option(min=0, help="Noise on the logits, relative to their deviation.")
    ] = FitSettings.noise,
    seed: SeedOption = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a run of other classes.")] = False,
    encoding: Encoding,
    json: JsonOption = False,
) -> None:
    """Learn what fine-tuning taught the weak model, from unlabelled images."""
    from transmiter_cli.embedding.sources import DataSpec
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.fit import FitOptions, fit_run

    if not finetuned:
        raise UsageError(
            "No fine-tuned weak model was given, so there is nothing to learn from.",
            "add --finetuned CHECKPOINT, or --finetuned probe to train one on the labels of --data",
        )
    recipe = {"basis": basis, "epochs": epochs, "batch_size": batch_size, "learning_rate": lr, "noise": noise}
    settings = checked_settings(FitSettings, **recipe, seed=seed)
    images = DataSpec(data, **vars(selection))
    options = FitOptions(
        weak,
        finetuned,
        images,
        classes=classes,
        template=template or [],
        templates=templates,
        aux_words=aux_words,
        vocabulary_size=vocabulary_size,
        settings=settings,
        views=views,
        force=force,
    )
    workspace = encoding.workspace()
    result = fit_run(options, Run(run), workspace, console.command_line())
    if json:
        console.print_json(
            {
                "artefact": str(result.path),
                "images": result.images,
                "classes": len(result.artefact.class_names),
                "vocabulary": len(result.artefact.vocabulary),
                "agreement_before": result.agreement_before,
                "agreement": result.agreement,
            }
        )
        return
    agreement = (
        f"{console.percent(result.agreement)} of answers agree (before: {console.percent(result.agreement_before)})"
    )
    console.print_result(
        [
            ("adapter", console.shown(result.path)),
            ("classes", f"{len(result.artefact.class_names)}: {some(result.artefact.class_names)}"),
            ("learned from", f"{result.images:,} images, {len(result.artefact.vocabulary):,} words"),
            ("with fine-tuned", agreement),
            ("next", f"transmiter transfer --strong MODEL{Run(run).flag}"),
        ]
    )
