"""The command line inside this process: fast, and with the same exit codes and streams as the installed command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from transmiter_cli.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def done(folder: Path, cache: Path, *lines: Sequence[object]) -> Path:
    """A folder in which command lines were run, for what several tests begin with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRANSMITER_CACHE", str(cache))
        patch.delenv("TRANSMITER_RUN", raising=False)
        for line in lines:
            patch.setattr("sys.argv", ["transmiter", *map(str, line), "-q"])
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code
    return folder


@pytest.fixture
def cli(
    shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSMITER_CACHE", str(shared_cache))
    monkeypatch.delenv("TRANSMITER_RUN", raising=False)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr("sys.argv", ["transmiter", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        streams = capsys.readouterr()
        return Outcome(code, streams.out, streams.err)

    yield call
    os.chdir("/")


@pytest.fixture
def own_cache(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache in which no other test has left embeddings of the same images."""
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "own-cache"))
