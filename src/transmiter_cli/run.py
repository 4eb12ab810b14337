"""The run directory: one task's artefacts, and run.json, which says how each was made."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from transmiter_cli.embedding.encoders.models import lasting_model_name
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import (
    LOCK,
    RECORD,
    absolute,
    expanded,
    held_lock,
    require_utf8_path,
    require_writable,
    writable,
    write_all,
    write_atomically,
)
from transmiter_cli.layout import (
    FITTED,
    PROBE_FILE,
    SEEN,
    STRONG_MODELS,
    artefacts_in,
    folder_name,
    homes_in,
)
from transmiter_cli.names import some
from transmiter_cli.record import Made, Step, Task, step_from_json, task_from_json, without

RUN_VARIABLE = "TRANSMITER_RUN"
DEFAULT_RUN = "transmiter-run"
Options = TypeVar("Options")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


class Run:
    """A run directory.

    Args:
        path: where it is; made when something is written.

    Raises:
        UsageError: if the path is no UTF-8, and its artefacts could not be read.
    """

    def __init__(self, path: Path) -> None:
        require_utf8_path(path, "name a run in another folder, or rename this one")
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
    def last_fit(self) -> str:
        """The command line of the last fit, or the usual one where no history tells."""
        first = next(iter(self.since_fit()), None)
        return self.usual_fit if first is None or first.command != "fit" else self.command_line_of(first)

    def usual_eval(self, strong: str | None = None) -> str:
        """The command line that measures what was made for a strong model, the last one if None."""
        chosen = "" if strong is None else self.strong_flag(strong)
        return f"transmiter eval --data LABELLED_FOLDER{chosen}{self.flag}"

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

    def require_fitted(self) -> None:
        """Raise UsageError if nothing was fitted, or the fit was not finished."""
        path = self.path / FITTED
        if not path.is_file():
            self.task()  # says so where there is no run at all
            raise UsageError(f"{path} is missing: a fit was interrupted, or it was removed.", self.last_fit)

    def strong(self, chosen: str | None = None) -> str:
        """The strong model that was transferred to; of several the last, if none is chosen.

        Raises:
            UsageError: if there is none yet, or the chosen one is not among them.
        """
        known = self.strong_models()
        if not known:
            self.require_fitted()
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
        return self.record().get("homes", {})

    def home(self, strong: str) -> Path:
        """Where a strong model's artefacts are."""
        return self.path / self.homes()[strong]

    def artefacts(self, strong: str) -> dict[str, Path]:
        """What was transferred to a strong model and made of it there: a file by the row of the evaluation it gives.

        With several --reg values, the first gives the row "transferred", each other one a row "reg=VALUE".
        """
        return artefacts_in(self.home(strong))

    def artefact_paths(self) -> list[Path]:
        """What transfer, self-train and refine made, whatever the record says."""
        return [path for home in homes_in(self.path) for path in artefacts_in(home).values()]

    def unrecorded(self) -> list[str]:
        """What was made and no record tells of, since it is damaged: files, as seen from the run's folder."""
        try:
            self.record()
        except TransmiterError:
            return [str(path.relative_to(self.path)) for path in self.artefact_paths()]
        return []

    def with_homes(self, strong: Sequence[str]) -> dict[str, str]:
        """The homes after a transfer to some models.

        The first model, if transferred to alone, has the run's own folder; all others have folders of their own.
        """
        known = self.homes()
        if len(strong) == 1 and not known:
            return {strong[0]: "."}
        return {**{name: f"{STRONG_MODELS}/{folder_name(name)}" for name in strong}, **known}

    def command_line_of(self, step: Step) -> str:
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
        fits = [i for i, step in enumerate(steps) if step.command == "fit"]
        return steps[fits[-1] if fits else 0 :]

    def history(self) -> list[Step]:
        """All that changed the run, the first one first."""
        return [step_from_json(entry) for entry in self.record().get("history", [])]

    def claim(self, task: Task, replacing: str) -> None:
        """Refuse to overwrite a run of other classes.

        Args:
            task: the new one.
            replacing: the command line that overwrites it, for the error to show.

        Raises:
            UsageError: if the directory holds such a run.
            TransmiterError: if its record is damaged.
        """
        if "task" not in self.record():
            return
        before = self.task().classes
        if before == task.classes:
            return
        told = f"{len(before)} classes, {some(before)}; this one has {len(task.classes)}, {some(task.classes)}"
        if sorted(before) == sorted(task.classes):
            there, here = next(pair for pair in zip(before, task.classes, strict=True) if pair[0] != pair[1])
            told = f"the same classes in another order, with {there!r} where this one has {here!r}"
        raise UsageError(
            f"{self.path} is a run of another task: {told}.", f"pass another --run, or replace it: {replacing}"
        )

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other commands from changing the run meanwhile.

        Raises:
            TransmiterError: if another one is changing it, or it is there and cannot be written to.
        """
        lock = None
        if self.path.is_dir():
            self.require_writable()
            try:
                lock = held_lock(self.path / LOCK)
            except TimeoutError as error:
                raise TransmiterError(
                    f"Another transmiter command is changing {self.path}.", "wait for it, or pass another --run"
                ) from error
        with lock or nullcontext():
            yield

    def require_writable(self) -> None:
        """Raise TransmiterError if nothing can be written to the directory."""
        require_writable(self.path, "pass another --run")

    def require_free(self, task: Task) -> None:
        """Refuse to overwrite files of others: there is no run here, but something is called as a run's own files are.

        Args:
            task: of the fit that would replace them, but for a probe that it learns from.

        Raises:
            UsageError: if there are such files.
        """
        if self.record_path.exists():
            return
        own = [*(self.path / name for name in (FITTED, PROBE_FILE, SEEN["fit"])), *artefacts_in(self.path).values()]
        there = [path.name for path in own if path.exists() and str(absolute(path)) not in task.finetuned]
        if there:
            raise UsageError(
                f"{self.path} is no run, and holds {some(there)}, which a run there would replace.",
                "pass another --run, or move them away",
            )

    def replace_fit(
        self, task: Task, adapter: bytes, beside: Mapping[str, bytes], step: Mapping[str, Any], **changes: Any
    ) -> list[Made]:
        """Put a fit in the place of what is there; return what goes, made of an earlier one.

        All is on the disk before anything goes, the record takes its name first, and the adapter last. So what fails
        leaves what was there, and a kill leaves that, or a run without an adapter, which nothing can be asked of.

        Args:
            task: what it is about.
            adapter: its artefact.
            beside: further files, by name.
            step: its `history_entry`.
            **changes: top-level entries of run.json to set.

        Raises:
            OSError: if something cannot be written.
        """
        try:
            history, gone = self.record().get("history", []), self.made()
        except TransmiterError:  # a damaged record is what --force replaces
            history, gone = [], []
        record = {"task": asdict(task), "history": [*history, step], **changes}
        files = [(self.path / name, content) for name, content in {FITTED: adapter, **beside}.items()]
        write_all([*files, (self.record_path, record_text(record))], lambda: self.forget(task))
        return gone

    def forget(self, task: Task) -> None:
        """Remove an earlier fit and what was made of it, but for a probe that a new task learns from.

        Nothing goes where there is no run, and nothing that no command writes.
        """
        if not self.record_path.exists():
            return
        own, *others = homes_in(self.path)
        seen = [home / name for home in (own, *others) for name in SEEN.values()]
        for path in (*self.artefact_paths(), *seen):  # as long as there is an artefact, what it saw is known
            path.unlink(missing_ok=True)
        for folder in (*others, own / STRONG_MODELS):
            with suppress(OSError):  # it is not there, or something of others is in it
                folder.rmdir()
        probe = self.path / PROBE_FILE
        if str(absolute(probe)) not in task.finetuned:
            probe.unlink(missing_ok=True)
        Path(os.path.realpath(self.path / FITTED)).unlink(missing_ok=True)  # not the link, which stays one

    def write(self, record: Mapping[str, Any]) -> None:
        """Write run.json.

        Raises:
            TransmiterError: if the directory cannot be written to.
        """
        with writable(self.path, "pass another --run"):
            write_atomically(self.record_path, record_text(record))

    def add(self, command: list[str], models: Mapping[str, str], made: Sequence[Made], **changes: Any) -> None:
        """Add a command to the history, with its folder, and the versions and model fingerprints behind its result.

        Args:
            command: the exact command line.
            models: fingerprint by model name.
            made: what it made.
            **changes: top-level entries of run.json to set.
        """
        record = self.record() | changes
        record.setdefault("history", []).append(history_entry(command, models, made))
        self.write(record)


def run_locked(
    command: Callable[Concatenate[Options, Run, Rest], Result],
) -> Callable[Concatenate[Options, Run, Rest], Result]:
    """A command that changes a run, and refuses to while another one does, or where there is none."""

    @wraps(command)
    def held(options: Options, run: Run, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        run.task()  # or else a lock would be left in a folder that is no run
        with run.locked():
            return command(options, run, *args, **kwargs)

    return held


def history_entry(command: list[str], models: Mapping[str, str], made: Sequence[Made] = ()) -> dict[str, Any]:
    """What the history keeps of a command: line, folder, what it made, and the versions and models behind that."""
    from importlib.metadata import version  # a tenth of the time of --help, which needs none

    versions = {name: version(name) for name in ("transmiter", "torch", "open_clip_torch")}
    about = {"models": dict(models), "versions": versions, "made": [list(one) for one in made]}
    return {"command": command, "folder": str(Path.cwd()), **about}


def record_text(record: Mapping[str, Any]) -> bytes:
    """A record as run.json has it."""
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def default_run() -> Path:
    """$TRANSMITER_RUN, or ./transmiter-run."""
    return expanded(os.environ.get(RUN_VARIABLE) or DEFAULT_RUN)
