"""What a bench file asks for."""

from __future__ import annotations

import itertools
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from transmiter_cli import demo
from transmiter_cli.bench.numbers import check_numbers
from transmiter_cli.embedding.sources.text import read_utf8
from transmiter_cli.errors import TransmiterError, UsageError, listing, mended_by
from transmiter_cli.layout import DIRECT, is_ours
from transmiter_cli.method.ranges import COUNT, SEED, Range
from transmiter_cli.method.settings import AUX_WORDS, VOCABULARY_SIZE, Method

PLAIN, BASE_TO_NOVEL = "plain", "base-to-novel"
KINDS = {
    "str": "a text",
    "int": "a whole number",
    "bool": "true or false",
    "Sequence[str]": "a list of texts",
    "Sequence[int]": "a list of whole numbers",
    "Mapping[str, str]": "a table",
    "Mapping[str, Any]": "a table",
}
"""What users call the types of fields."""


@dataclass(frozen=True)
class DataEntry:
    """A data set.

    Attributes:
        name: how the table and the placeholder {data} call it.
        images: a --data value; not needed where the teachers have feature files.
        root: its --root.
        template: a prompt with {} for the class.
        templates: a name or file of more prompts, as --templates.
        limit: the most train images.
        fit_on: the name of another data set: all is fitted there, and measured on the test part of this one.
        map: with `fit_on`, a file from this data set's labels to the classes of that one, as --map.
        allow_overlap: measure on test images that are train images, too.
    """

    name: str
    images: str | None = None
    root: str | None = None
    template: str | None = None
    templates: str | None = None
    limit: int | None = None
    fit_on: str | None = None
    map: str | None = None
    allow_overlap: bool = False


@dataclass(frozen=True)
class TeacherEntry:
    """A fine-tuned weak model. Either of its two kinds may have the placeholders {data}, {seed}, {shots} and {weak}.

    {data} is the data set that is fitted on; in the test part's feature file, the one that is measured on.

    Attributes:
        finetuned: a --finetuned value, for data of images; "probe" is made from `shots` labels per class, or all.
        features: the path of the authors' feature files, {part} standing for train and test.
    """

    name: str
    finetuned: str | None = None
    features: str | None = None


@dataclass(frozen=True)
class MethodEntry:
    """A way to transfer.

    Attributes:
        transfer: the method of `tm.transfer`.
        options: its other arguments: reg, rho, ...; `paper_lambda` is the paper's absolute one, reg times images.
        fit: fields of FitSettings.
        refine: fields of RefineSettings; refines with `shots` labels per class, or all. None for not at all.
    """

    name: str
    transfer: str = "adapter"
    options: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    refine: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BenchSpec:
    """A whole bench file.

    Attributes:
        protocol: "plain" or "base-to-novel" (only base classes in the train images; CoOp's rule).
        shots: labelled images per class, for the teacher "probe", for refine, and for {shots}; empty for no such axis.
        names: what feature files call a model, by our name of it; "/" becomes "-" otherwise.
    """

    data: Sequence[DataEntry]
    teacher: Sequence[TeacherEntry]
    method: Sequence[MethodEntry]
    weak: Sequence[str]
    strong: Sequence[str]
    seeds: Sequence[int] = (0,)
    shots: Sequence[int] = ()
    protocol: str = PLAIN
    aux_words: str = AUX_WORDS
    vocabulary_size: int = VOCABULARY_SIZE
    names: Mapping[str, str] = field(default_factory=dict)

    def scenes(self) -> Iterator[SceneKey]:
        """Everything but the methods, in the file's order; the targets of what is fitted follow it."""
        fitted = [one for one in self.data if one.fit_on is None]
        axes = (fitted, self.teacher, self.weak, self.strong, self.shots or (None,), self.seeds)
        for data, teacher, weak, strong, shots, seed in itertools.product(*axes):
            for target in (None, *(one for one in self.data if one.fit_on == data.name)):
                yield SceneKey(data, teacher, weak, strong, shots, seed, target)


@dataclass(frozen=True)
class SceneKey:
    """One combination of all axes but the method.

    Attributes:
        data: what is fitted on, and measured on where there is no target.
        target: another data set that is measured on.
    """

    data: DataEntry
    teacher: TeacherEntry
    weak: str
    strong: str
    shots: int | None
    seed: int
    target: DataEntry | None = None

    @property
    def measured(self) -> DataEntry:
        """The data set that is measured on."""
        return self.target or self.data

    def fill(self, pattern: str, **more: str) -> str:
        """A value with its placeholders filled.

        Raises:
            UsageError: if it has another one, or {shots} without an axis of shots.
        """
        values: dict[str, Any] = {
            "data": self.data.name,
            "seed": self.seed,
            "weak": self.weak.replace("/", "-"),
            **more,
        }
        if self.shots is not None:
            values["shots"] = self.shots
        try:
            return pattern.format(**values)
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise UsageError(f"{pattern!r} has a placeholder that nothing fills; there are {known}.") from error

    def __str__(self) -> str:
        shots = "" if self.shots is None else f", {self.shots} shot{'s' * (self.shots > 1)}"
        where = self.data.name if self.target is None else f"{self.target.name} (fitted on {self.data.name})"
        return f"{where}, {self.teacher.name}, {self.weak} > {self.strong}{shots}, seed {self.seed}"


def bundled(path: Path) -> Path:
    """The bench that comes with the package, for the name "demo"; any other path is its own."""
    return demo.FOLDER / "bench.toml" if str(path) == "demo" else path


def read_spec(path: Path) -> BenchSpec:
    """A bench file.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it is no TOML in UTF-8, or lacks or has an entry that it must not.
    """
    path, example = bundled(path), bundled(Path("demo"))
    if not path.is_file():
        raise UsageError(f"There is no bench file {str(path)!r}.", listing(path))
    with mended_by(f"cat {shlex.quote(str(example))}  # one that works; docs/evaluation.md has all keys"):
        return parse_spec(path)


def parse_spec(path: Path) -> BenchSpec:
    """What a bench file holds, as `read_spec` reads it."""
    try:
        content = tomllib.loads(read_utf8(path))
    except tomllib.TOMLDecodeError as error:
        raise TransmiterError(f"{path} is no valid TOML: {error}.") from error
    kinds = {"data": DataEntry, "teacher": TeacherEntry, "method": MethodEntry}
    for name, kind in kinds.items():
        rows = content.get(name, [])
        if not isinstance(rows, list) or not rows:
            raise TransmiterError(f"{path} needs at least one [[{name}]].")
        content[name] = tuple(entry(kind, row, f"[[{name}]] of {path.name}") for row in rows)
    spec: BenchSpec = entry(BenchSpec, content, path.name)
    check(spec, path)
    return spec


def entry(kind: type[Any], row: object, where: str) -> Any:
    """A dataclass from a table of the file.

    Raises:
        TransmiterError: if a key is unknown or missing, or has a value of another type.
    """
    known = {one.name: one for one in fields(kind)}
    if not isinstance(row, dict):
        raise TransmiterError(f"{where} must be a table.")
    unknown = [name for name in row if name not in known]
    if unknown:
        raise TransmiterError(f"{where} has {unknown[0]!r}, which is none of {', '.join(known)}.")
    required = [name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    missing = [name for name in required if name not in row]
    if missing:
        raise TransmiterError(f"{where} lacks {missing[0]!r}.")
    for name, value in row.items():
        if not fits(str(known[name].type), value):
            wanted = KINDS[str(known[name].type).removesuffix(" | None")]
            raise TransmiterError(f"{where}: {name} must be {wanted}, not {value!r}.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})


def fits(declared: str, value: object) -> bool:
    """Whether a value is of a field's declared type."""
    if declared.startswith("Sequence["):
        inner = declared[9:-1]
        return isinstance(value, list | tuple) and (
            inner not in ("str", "int") or all(fits(inner, one) for one in value)
        )
    if declared.startswith("Mapping["):
        return isinstance(value, dict)
    if declared in ("int", "int | None", "bool"):
        return type(value) is (bool if declared == "bool" else int)
    return isinstance(value, str)


def check(spec: BenchSpec, path: Path) -> None:
    """Raise TransmiterError if entries contradict each other."""
    if spec.protocol not in (PLAIN, BASE_TO_NOVEL):
        raise TransmiterError(f"{path}: protocol is {PLAIN!r} or {BASE_TO_NOVEL!r}, not {spec.protocol!r}.")
    for axis in ("weak", "strong", "seeds", "shots"):
        values = getattr(spec, axis)
        if not values and axis != "shots":
            raise TransmiterError(f"{path}: {axis} is empty.")
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise TransmiterError(f"{path}: {axis} has {twice[0]!r} twice.")
    for kind in ("data", "teacher", "method"):
        names = [one.name for one in getattr(spec, kind)]
        if not all(names):
            raise TransmiterError(f"{path} has a [[{kind}]] with an empty name.")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise TransmiterError(f"{path} has two [[{kind}]] with the name {twice[0]!r}.")
    taken = [one.name for one in spec.method if not is_ours(one.name) or one.name == DIRECT]
    if taken:
        raise TransmiterError(f"{path}: no method can be called {taken[0]!r}, the name of another row of eval.")
    check_values(spec, path)
    for data in spec.data:
        check_target(data, spec, path)
    for teacher in spec.teacher:
        if (teacher.finetuned is None) == (teacher.features is None):
            raise TransmiterError(f"{path}: the teacher {teacher.name!r} needs either finetuned or features.")
        if teacher.finetuned is not None and any(one.images is None for one in spec.data):
            raise TransmiterError(f"{path}: the teacher {teacher.name!r} needs data with images.")


def check_values(spec: BenchSpec, path: Path) -> None:
    """Raise TransmiterError if a number is out of its range, or a method or option is unknown."""
    limits = [one.limit for one in spec.data if one.limit is not None]
    counts: list[tuple[str, Sequence[int], Range]] = [
        ("shots", spec.shots, COUNT),
        ("seeds", spec.seeds, SEED),
        ("limit", limits, COUNT),
    ]
    for name, values, allowed in counts:
        bad = [value for value in values if not allowed.holds(value)]
        if bad:
            raise TransmiterError(f"{path}: {name} must be {allowed}, not {bad[0]}.")
    for method in spec.method:
        if method.transfer not in get_args(Method):
            known = f"none of {', '.join(get_args(Method))}"
            raise TransmiterError(f"{path}: the method {method.name!r} has transfer {method.transfer!r}, {known}.")
        tables = {"options": method.options, "fit": method.fit, "refine": method.refine}
        check_numbers(f"{path}: the method {method.name!r}", method.transfer, tables)


def check_target(data: DataEntry, spec: BenchSpec, path: Path) -> None:
    """Raise TransmiterError if a data set that others are measured on cannot be meant."""
    where = f"{path}: the data set {data.name!r}"
    if data.fit_on is None:
        if data.map is not None:
            raise TransmiterError(f"{where} has a map, but no fit_on: a map leads to the classes of another data set.")
        return
    fitted = [one.name for one in spec.data if one.fit_on is None]
    if data.fit_on not in fitted:
        raise TransmiterError(f"{where} has fit_on {data.fit_on!r}, which is none of {', '.join(fitted)}.")
    own = [name for name in ("template", "templates", "limit") if getattr(data, name) is not None]
    if own:
        raise TransmiterError(f"{where} has {own[0]} and fit_on: prompts and limit are those of {data.fit_on!r}.")
    if data.map is not None and spec.protocol == BASE_TO_NOVEL:
        raise TransmiterError(f"{where} has a map, which leaves no base and novel classes: protocol must be {PLAIN!r}.")
    if data.map is not None and any(teacher.features is not None for teacher in spec.teacher):
        raise TransmiterError(f"{where} has a map, but a teacher's features have no images and labels to map.")
