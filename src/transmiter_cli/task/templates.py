"""Prompt templates: those with a name, those in a file, and a class's own prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from transmiter_cli.embedding.encoders.prompts import DEFAULT_TEMPLATE, Templates
from transmiter_cli.embedding.sources.text import read_list
from transmiter_cli.errors import UsageError
from transmiter_cli.files import expanded
from transmiter_cli.names import finder, numbered, resembling

COOP = {
    "oxford_pets": "a photo of a {}, a type of pet.",
    "flowers102": "a photo of a {}, a type of flower.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "stanford_cars": "a photo of a {}.",
    "food101": "a photo of {}, a type of food.",
    "sun397": "a photo of a {}.",
    "caltech101": "a photo of a {}.",
    "ucf101": "a photo of a person doing {}.",
    "imagenet-coop": "a photo of a {}.",
}
"""The prompt of each data set in CoOp (Zhou et al., IJCV 2022) and in the papers that compare with it."""
ENSEMBLES = {"imagenet": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}
"""CLIP's 80 templates for ImageNet and the seven best of them, as open_clip calls them."""


def choose_templates(
    given: Sequence[str], source: str | None, class_names: Sequence[str], labels: Sequence[str] = ()
) -> Templates:
    """The templates of --template and --templates together; "a photo of a {}." if neither gives any.

    Args:
        given: single templates.
        source: a file, or a name among `COOP` and `ENSEMBLES`; None for none.
        class_names: the task's classes, for a file with prompts by class.
        labels: what the data call these classes; such a file may use that, too.

    Raises:
        UsageError: if there is no such file or name, it cannot be used, or it lacks a class.
    """
    found = [] if source is None else read_templates(source)
    if isinstance(found, dict):
        own = own_prompts(found, class_names, labels, str(source))
        return Templates(tuple(check_templates(given)) or (DEFAULT_TEMPLATE,), own)
    return Templates(tuple(dict.fromkeys(check_templates([*found, *given]))) or (DEFAULT_TEMPLATE,))


def check_templates(templates: Sequence[str]) -> list[str]:
    """The templates, if each has one place for a name.

    Raises:
        UsageError: otherwise.
    """
    for template in templates:
        if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise UsageError(f"The template {template!r} must have {{}} once, where the name goes.", DEFAULT_TEMPLATE)
    return list(templates)


def read_templates(source: str) -> list[str] | dict[str, list[str]]:
    """The templates of a name, or of a file: one per line, a JSON list, or a JSON object from class to prompts.

    Raises:
        UsageError: if there is neither, or the file holds nothing of the kind.
    """
    if source in COOP:
        return [COOP[source]]
    if source in ENSEMBLES:
        import open_clip

        return [template("{}") for template in getattr(open_clip, ENSEMBLES[source])]
    path = expanded(source)
    if not path.is_file():
        known = [*ENSEMBLES, *COOP]
        raise UsageError(
            f"There are no templates {source!r}: neither a file nor one of {', '.join(known)}."
            f"{resembling(source, known)}",
            f"--templates {next(iter(ENSEMBLES))}",
        )
    content = read_list(path)
    if is_texts(content):
        return list(content)
    if isinstance(content, dict) and content and all(is_texts(prompts) for prompts in content.values()):
        return {str(name): list(prompts) for name, prompts in content.items()}
    raise UsageError(
        f"{path} holds no templates: a list of texts, or an object from class to such a list, is needed.",
        "write one template a line to a text file",
    )


def is_texts(value: object) -> TypeGuard[list[str]]:
    """Whether a value is a list of texts, at least one."""
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)


def own_prompts(
    found: Mapping[str, Sequence[str]], class_names: Sequence[str], labels: Sequence[str], source: str
) -> dict[str, tuple[str, ...]]:
    """Each class's prompts, found by its name or its label whatever their spelling.

    Raises:
        UsageError: if a class has none.
    """
    prompts, find = [*found.values()], finder(numbered([*found]))
    own: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(class_names):
        label = labels[number] if number < len(labels) else name
        place = next((place for place in map(find, (name, label)) if place is not None), None)
        if place is None:
            said = f"{source} has no prompts for the class {name!r}, or several of names spelled alike."
            raise UsageError(said, "give every class a list of prompts")
        own[name] = tuple(prompts[place])
    return own
