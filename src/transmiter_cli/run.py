"""The run directory: one task's artefacts, and run.json, which says how each was made."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from transmiter_cli.embedding.models import lasting_model_name
from transmiter_cli.embedding.prompts import Templates
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import LOCK, RECORD, absolute, digest, write_atomically
from transmiter_cli.names import some

if TYPE_CHECKING:
    from transmiter_cli.artefact import Method
    from transmiter_cli.embedding.decoding import Decoding
    from transmiter_cli.embedding.encoder import Precision

RUN_VARIABLE = "TRANSMITER_RUN"
DEFAULT_RUN = "transmiter-run"
ARTEFACTS = {
    "transferred": "strong.safetensors",
    "ridge": "strong-ridge.safetensors",
    "discriminant": "strong-discriminant.safetensors",
    "self_trained": "self-trained.safetensors",
    "refined": "refined.safetensors",
}
"""File names of what transfer, self-train and refine make, by the row of the evaluation they give."""
LATER: dict[str, Literal["self-train", "refine"]] = {"self_trained": "self-train", "refined": "refine"}
"""The command behind each row that starts from what was transferred."""
ROWS: dict[Method, str] = {"adapter": "transferred", "ridge": "ridge", "discriminant": "discriminant"}
"""The row of the evaluation that each method of transfer gives."""
DEFAULT_METHODS: tuple[Method, ...] = ("adapter", "discriminant")
"""What transfer makes where no method is named: the paper's, and the best there is."""
SWEPT = "strong-reg="
"""How the files begin of what transfer makes with other --reg values than the first."""
SWEPT_ROW = "reg="
"""How the rows of the evaluation begin that these give."""
STRONG_MODELS = "strong"
"""The folder of those strong models that have a folder of their own."""
FITTED = "weak.safetensors"
PROBE_FILE = "probe.safetensors"


@dataclass(frozen=True)
class Task:
    """What a run is about; later commands read it, so that flags are not repeated.

    Attributes:
        classes: names of the task classes.
        label_names: what the data call them; empty for unlabelled data.
        templates: prompts.
        data: the --data of fit.
        split: its part that fit saw.
        weak: the weak model's name.
        finetuned: the --finetuned values of fit; several are averaged.
        root: the --root of fit.
        limit: the --limit of fit.
        decoding: how fit's images were decoded.
        precision: what their encoders computed in; None for what is usual on a device.
    """

    classes: tuple[str, ...]
    label_names: tuple[str, ...]
    templates: Templates
    data: str
    split: str | None
    weak: str
    finetuned: tuple[str, ...]
    root: str | None = None
    limit: int | None = None
    decoding: Decoding = "full"
    precision: Precision | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What labelled images of the task are labelled with: the data's own labels, or the class names."""
        return self.label_names or self.classes


class Step(NamedTuple):
    """A command that changed a run.

    Attributes:
        line: the command line.
        models: the names of the models behind its result.
        folder: where it was given, and relative paths in it start; empty if nobody knows.
    """

    line: Sequence[str]
    models: frozenset[str]
    folder: str = ""


class Made(NamedTuple):
    """What transfer, self-train or refine made: for which strong model, and the row of the evaluation that it gives."""

    strong: str
    row: str


def without(line: Sequence[str], option: str) -> list[str]:
    """A command line less an option and its value, written as `--name value` or `--name=value`."""
    pairs = pairwise(["", *line])
    return [part for before, part in pairs if option not in (before, part) and not part.startswith(f"{option}=")]


def task_from_json(stored: dict[str, Any]) -> Task:
    """A task as run.json holds it: tuples are lists there."""
    lists: dict[str, Any] = {name: tuple(stored[name]) for name in ("classes", "label_names", "finetuned")}
    own: dict[str, tuple[str, ...]] = {name: tuple(prompts) for name, prompts in stored["templates"]["own"].items()}
    lists["templates"] = Templates(tuple(stored["templates"]["shared"]), own)
    return Task(**(stored | lists))


def step_from_json(stored: dict[str, Any]) -> Step:
    """An entry of the history as run.json holds it."""
    return Step([str(part) for part in stored["command"]], frozenset(stored["models"]), str(stored.get("folder", "")))


class Run:
    """A run directory.

    Args:
        path: where it is; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def flag(self) -> str:
        """What a command line needs to mean this run, whatever $TRANSMITER_RUN is; nothing for the usual one."""
        usual = self.path == Path(DEFAULT_RUN) and not os.environ.get(RUN_VARIABLE)
        return "" if usual else f" --run {shlex.quote(str(self.path))}"

    @property
    def usual_fit(self) -> str:
        """The command line that makes a run here, as far as it can be known."""
        return f"transmiter fit --weak MODEL --finetuned FILE --data FOLDER{self.flag}"

    @property
    def record_path(self) -> Path:
        """run.json."""
        return self.path / RECORD

    def record(self) -> dict[str, Any]:
        """The content of run.json; empty if there is none yet.

        Raises:
            TransmiterError: if it is damaged.
        """
        if not self.record_path.is_file():
            return {}
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
            task_from_json(record["task"])
            if isinstance(record["history"], list) and all(map(step_from_json, record["history"])):
                return record
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise TransmiterError(f"{self.record_path} is damaged.", "pass another --run, or fit again with --force")

    def task(self) -> Task:
        """What the run is about.

        Raises:
            UsageError: if nothing was fitted here.
        """
        record = self.record()
        if "task" not in record:
            raise UsageError(f"There is no run in {self.path}.", self.usual_fit)
        return task_from_json(record["task"])

    def strong(self, chosen: str | None = None) -> str:
        """The strong model that was transferred to; of several the last, if none is chosen.

        Raises:
            UsageError: if there is none yet, or the chosen one is not among them.
        """
        known = self.strong_models()
        if not known:
            raise UsageError(
                f"Nothing was transferred in {self.path} yet.", f"transmiter transfer --strong MODEL{self.flag}"
            )
        if chosen is None:
            return self.record()["strong"]
        found = next((name for name in (chosen, lasting_model_name(chosen)) if name in known), None)
        if found is None:
            raise UsageError(
                f"Nothing was transferred to {chosen!r} in {self.path}, only to {', '.join(known)}.",
                f"transmiter transfer --strong {shlex.quote(chosen)}{self.flag}",
            )
        return found

    def strong_flag(self, strong: str) -> str:
        """What a command line needs to mean this strong model; nothing where the run has no other."""
        return f" --strong {shlex.quote(strong)}" if len(self.strong_models()) > 1 else ""

    def strong_models(self) -> list[str]:
        """All strong models that were transferred to, sorted."""
        return sorted(self.homes())

    def made(self) -> list[Made]:
        """What there is of transfers and what was made of them."""
        return [Made(strong, row) for strong in self.strong_models() for row in self.artefacts(strong)]

    def homes(self) -> dict[str, str]:
        """Where each strong model's artefacts are: a folder, as seen from the run's own one."""
        record = self.record()
        return record.get("homes") or ({record["strong"]: "."} if "strong" in record else {})

    def home(self, strong: str) -> Path:
        """Where a strong model's artefacts are."""
        return self.path / self.homes()[strong]

    def artefacts(self, strong: str) -> dict[str, Path]:
        """What was transferred to a strong model and made of it there: a file by the row of the evaluation it gives.

        With several --reg values, the first gives the row "transferred", each other one a row "reg=VALUE".
        """
        return artefacts_in(self.home(strong))

    def with_homes(self, strong: Sequence[str]) -> dict[str, str]:
        """The homes after a transfer to some models: whoever comes alone, and first, gets the run's own folder.

        Whoever has a home keeps it; all others get folders of their own.
        """
        known = self.homes()
        if len(strong) == 1 and not known:
            return {strong[0]: "."}
        return {**{name: f"{STRONG_MODELS}/{folder_name(name)}" for name in strong}, **known}

    def again(self, step: Step) -> str:
        """The command line of a step, for where the run lies now and the folder that the step's paths start from."""
        line = shlex.join(without(step.line, "--run"))
        folder = Path(step.folder)
        # One that is gone was perhaps moved with the run: this one is as good as any then.
        if folder == Path.cwd() or not folder.is_absolute() or not folder.is_dir():
            return line + self.flag
        return f"(cd {shlex.quote(step.folder)} && {line} --run {shlex.quote(str(self.path.resolve()))})"

    def commands(self) -> list[str]:
        """The command lines that made what is there, the last fit's first."""
        return [shlex.join(step.line) for step in self.since_fit()]

    def since_fit(self) -> list[Step]:
        """What changed the run from its last fit on."""
        steps = self.history()
        fits = [i for i, step in enumerate(steps) if step.line[1:2] == ["fit"]]
        return steps[fits[-1] if fits else 0 :]

    def history(self) -> list[Step]:
        """All that changed the run, the first one first."""
        return [step_from_json(entry) for entry in self.record().get("history", [])]

    def claim(self, task: Task, force: bool) -> None:
        """Refuse to overwrite a run of other classes, or to compute what could not be written.

        Raises:
            UsageError: if the directory holds such a run and `force` is off.
            TransmiterError: if it cannot be written to.
        """
        self.require_writable()
        if force or "task" not in self.record():
            return
        before = self.task().classes
        if before != task.classes:
            raise UsageError(
                f"{self.path} is a run of another task: {len(before)} classes, {some(before)}; "
                f"this one has {len(task.classes)}, {some(task.classes)}",
                "pass another --run, or --force to replace it",
            )

    @contextmanager
    def changing(self) -> Generator[None]:
        """Keep other commands from changing the run meanwhile.

        Raises:
            TransmiterError: if another one is changing it, or it is there and cannot be written to.
        """
        from filelock import FileLock, Timeout

        with ExitStack() as held:
            try:
                if self.path.is_dir():
                    self.require_writable()
                    held.enter_context(FileLock(self.path / LOCK, timeout=0))
            except Timeout as error:
                raise TransmiterError(
                    f"Another transmiter command is changing {self.path}.", "wait for it, or pass another --run"
                ) from error
            except (OSError, NotImplementedError):  # a file system without locks
                pass
            yield

    def require_writable(self) -> None:
        """Raise TransmiterError if nothing can be written to the directory."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise TransmiterError(
                f"{self.path} cannot be written to: {error.strerror}.", "pass another --run"
            ) from error

    def begin(self, task: Task) -> list[Made]:
        """Start the record anew for a fit whose artefact is written next; return what goes, made of an earlier fit.

        The earlier fit's artefact goes first: until the new one is written, nothing takes the directory for a run.
        """
        try:
            history, gone = self.record().get("history", []), self.made()
        except TransmiterError:  # a damaged record is what --force replaces
            history, gone = [], []
        (self.path / FITTED).unlink(missing_ok=True)
        self.forget()
        probe = self.path / PROBE_FILE
        if str(absolute(probe)) not in task.finetuned:  # unless the new fit learned from that very file
            probe.unlink(missing_ok=True)
        self.write({"task": asdict(task), "history": history})
        return gone

    def forget(self) -> None:
        """Remove what transfer, self-train and refine made."""
        for path in [*(self.path / name for name in ARTEFACTS.values()), *self.path.glob(f"{SWEPT}*.safetensors")]:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.path / STRONG_MODELS, ignore_errors=True)

    def write(self, record: Mapping[str, Any]) -> None:
        """Write run.json.

        Raises:
            TransmiterError: if the directory cannot be written to.
        """
        try:
            write_atomically(self.record_path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
        except OSError as error:
            raise TransmiterError(
                f"{self.path} cannot be written to: {error.strerror}.", "pass another --run"
            ) from error

    def add(self, command: list[str], models: Mapping[str, str], **changes: Any) -> None:
        """Add a command to the history, with its folder, and the versions and model fingerprints behind its result.

        Args:
            command: the exact command line.
            models: fingerprint by model name.
            **changes: top-level entries of run.json to set.
        """
        from importlib.metadata import version  # a tenth of the time of --help, which needs none

        record = self.record() | changes
        versions = {name: version(name) for name in ("transmiter", "torch", "open_clip_torch")}
        step = {"command": command, "folder": str(Path.cwd()), "models": dict(models), "versions": versions}
        record.setdefault("history", []).append(step)
        self.write(record)


def artefacts_in(home: Path) -> dict[str, Path]:
    """The artefacts in a strong model's folder, as `Run.artefacts` gives them."""
    files = {row: home / name for row, name in ARTEFACTS.items()}
    swept: dict[float, Path] = {}
    for path in home.glob(f"{SWEPT}*.safetensors"):
        with suppress(ValueError):  # a copy that somebody made by hand
            swept[float(path.stem.removeprefix(SWEPT))] = path
    others = {swept_row(reg): swept[reg] for reg in sorted(swept)}
    rows = {"transferred": files.pop("transferred"), **others, **files}
    return {row: path for row, path in rows.items() if path.is_file()}


def swept_row(reg: float) -> str:
    """The row of a --reg value that is not the first of several; as short as tells it from every other value."""
    short = f"{reg:g}"
    return f"{SWEPT_ROW}{short if float(short) == reg else repr(reg)}"


def folder_name(strong: str) -> str:
    """A folder for a strong model: its name as far as a file system takes it, and a digest to tell names apart."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', strong).strip('-')[-60:]}-{digest(strong)[:8]}"


def default_run() -> Path:
    """$TRANSMITER_RUN, or ./transmiter-run."""
    return Path(os.environ.get(RUN_VARIABLE) or DEFAULT_RUN).expanduser()
