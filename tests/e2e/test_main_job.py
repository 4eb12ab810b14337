"""The main job with the installed command, on the bundled models and real images."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import transmiter_cli as tm
from tests.e2e.conftest import COMMAND, Demo, Transmiter
from transmiter_cli.embedding.sources import open_images

ROWS = [
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
    "discriminant",
    "refined",
]
COMMANDS = ("demo", "fit", "transfer", "refine", "eval", "predict", "bench", "embed", "models", "inspect")


def test_the_demo_shows_what_it_claims_over_three_seeds(transmiter: Transmiter):
    measured = [json.loads(transmiter("demo", "--seed", seed, "--json").stdout)["rows"] for seed in range(3)]
    assert all(list(rows) == ROWS for rows in measured)
    mean = {name: sum(rows[name]["top1"] for rows in measured) / 3 for name in ROWS}
    assert mean["weak"] < mean["strong"] - 0.05
    assert mean["weak_finetuned"] >= mean["weak"] + 0.15
    assert mean["transferred"] >= mean["strong"] + 0.05
    assert mean["ridge"] >= mean["strong"] + 0.05
    assert mean["discriminant"] >= mean["transferred"] + 0.02
    assert mean["refined"] > mean["transferred"]
    unlabelled = [name for name in ROWS if name not in ("weak_finetuned", "refined")]
    assert not any(rows[name]["labels"] or rows[name]["gradients"] for rows in measured for name in unlabelled)


def test_predictions_go_to_their_file_while_bars_are_on_the_terminal(demo: Demo, environment: dict[str, str]):
    folder, _ = demo
    ours, theirs = os.openpty()
    line = [str(COMMAND), "predict", "--run", "transmiter-demo", "--data", "demo-digits", "--limit", "20"]
    done = subprocess.run(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=theirs, timeout=300, check=True, text=True
    )
    os.close(theirs)
    os.close(ours)
    assert len([json.loads(one) for one in done.stdout.splitlines()]) == 20


def test_the_demo_prints_a_table_of_80_columns_and_a_sentence(demo: Demo):
    _, done = demo
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert re.search(r"^ +transferred\W+9\d\.\d ", done.stdout, re.MULTILINE)
    assert re.search(
        r"from \d\d\.\d % to 9\d\.\d % .* and to 9\d\.\d % \(discriminant\)", " ".join(done.stdout.split())
    )
    assert "$ transmiter fit --weak demo-weak" in done.stderr


def test_the_second_run_of_every_command_decodes_nothing(transmiter: Transmiter, demo: Demo, tmp_path: Path):
    shutil.copytree(demo[0] / "transmiter-demo", tmp_path / "run")
    lines = [
        "fit --weak demo-weak --finetuned demo-finetuned --data demo-digits --aux-words characters --run run",
        "transfer --strong demo-strong --method adapter --method ridge --method discriminant --run run",
        "refine --shots 4 --run run",
        "eval --run run",
        "embed --model demo-weak --data demo-digits --split test",
    ]
    for line in lines:
        done = transmiter(*line.split())
        assert "none decoded" in done.stderr, line
        assert "decoded and encoded" not in done.stderr, line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_each_help_runs(transmiter: Transmiter, demo: Demo, command: str, tmp_path: Path):
    text = " ".join(transmiter(command, "--help").stdout.split())
    example = re.search(r"Example: (transmiter .*)$", text)
    assert example, text
    if command in ("transfer", "refine", "eval", "predict", "inspect"):
        shutil.copytree(demo[0] / "transmiter-demo", tmp_path / "transmiter-run")
    _, *arguments = shlex.split(example[1])
    assert transmiter(*arguments).stdout.strip()


def test_fit_and_transfer_give_the_same_bytes_again(transmiter: Transmiter, tmp_path: Path):
    for run in ("first", "second"):
        line = "fit --weak demo-weak --finetuned demo-finetuned --data demo-digits --epochs 2 -q --run"
        transmiter(*line.split(), run)
        transmiter(
            "transfer", "--strong", "demo-strong", "--method", "adapter", "--method", "ridge", "--run", run, "-q"
        )
    for name in ("weak", "strong", "strong-ridge"):
        first, second = (tmp_path / run / f"{name}.safetensors" for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def own_photographs(folder: Path) -> None:
    """A user's own folder: three classes, no splits, JPEG, names with spaces."""
    from PIL import Image

    for name in ("zero", "four", "six"):
        (folder / name).mkdir(parents=True)
        for number, file in enumerate(file for file in open_images("demo-digits", "train").files if file.label == name):
            if number < 40:
                Image.open(file.path).resize((64, 64)).convert("RGB").save(folder / name / f"photo {number}.jpg")


def test_a_users_own_images_with_a_probe(transmiter: Transmiter, tmp_path: Path):
    own_photographs(tmp_path / "mine")
    fit = [
        "fit",
        "--weak",
        "demo-weak",
        "--finetuned",
        "probe",
        "--data",
        "mine",
        "--aux-words",
        "characters",
        "--json",
    ]
    fitted = json.loads(transmiter(*fit).stdout)
    assert (fitted["images"], fitted["classes"]) == (120, 3)
    assert fitted["agreement"] >= fitted["agreement_before"]
    transmiter(
        "transfer", "--strong", "demo-strong", "--method", "ridge", "--method", "adapter", "--method", "discriminant"
    )
    transmiter("refine", "--data", "mine", "--shots", "4")
    test = tmp_path / "held out"
    for name in ("zero", "four", "six"):
        shutil.copytree(open_images("demo-digits", "test").files[0].path.parents[1] / name, test / name)
    result = json.loads(transmiter("eval", "--data", "held out", "--json").stdout)
    assert list(result["rows"]) == ROWS
    assert result["rows"]["weak_finetuned"]["top1"] > 0.9
    record = json.loads((tmp_path / "transmiter-run/run.json").read_text())
    assert [entry["command"][1] for entry in record["history"]] == ["fit", "transfer", "refine"]
    assert record["task"]["classes"] == ["four", "six", "zero"]
    assert all(entry["versions"]["torch"] and entry["models"] for entry in record["history"])


def test_unlabelled_images_in_a_flat_folder(transmiter: Transmiter, tmp_path: Path):
    (tmp_path / "flat").mkdir()
    for file in open_images("demo-digits", "train").files[::5]:
        shutil.copy(file.path, tmp_path / "flat")
    labels = open_images("demo-digits", "test").label_names
    (tmp_path / "names.txt").write_text("\n".join(labels))
    transmiter(
        *[
            "fit",
            "--weak",
            "demo-weak",
            "--finetuned",
            "demo-finetuned",
            "--data",
            "flat",
            "--classes",
            "names.txt",
            "--seed",
            "3",
        ]
    )
    transmiter("transfer", "--strong", "demo-strong")
    rows = json.loads(transmiter("eval", "--data", "demo-digits", "--json").stdout)["rows"]
    assert rows["transferred"]["top1"] > rows["strong"]["top1"]


def test_embeddings_in_a_file_of_ones_own(transmiter: Transmiter, tmp_path: Path):
    from safetensors import safe_open

    line = "embed --model demo-weak --model demo-strong --data demo-digits --split test --out e.safetensors --json"
    transmiter(*line.split())
    with safe_open(tmp_path / "e.safetensors", framework="pt") as file:
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118
        ids = json.loads(file.metadata()["ids"])
    assert shapes == {"demo-weak": (599, 64), "demo-strong": (599, 96)}
    assert ids == [file.id for file in open_images("demo-digits", "test").files]


def test_inspect_and_cache_ls_tell_all_without_torch(
    transmiter: Transmiter, demo: Demo, environment: dict[str, str], tmp_path: Path
):
    shutil.copytree(demo[0] / "transmiter-demo", tmp_path / "transmiter-demo")
    shown = json.loads(transmiter("inspect", "transmiter-demo/strong.safetensors", "--json").stdout)
    assert (shown["stage"], shown["method"], shown["classes"]) == ("strong", "adapter", 10)
    assert shown["vocabulary"][:2] == ["eight", "five"]
    assert shown["details"]["transfer"] == {"images": 1198, "reg": 0.01}
    code = "import sys; from transmiter_cli.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: print('torch' in sys.modules)"
    for arguments in (["inspect", "transmiter-demo/strong.safetensors"], ["cache", "ls"]):
        line = [COMMAND.parent / "python", "-c", code, *arguments]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) > 2
        assert done.stdout.splitlines()[-1] == "False"


def test_a_signal_while_the_command_is_imported_shows_no_traceback(environment: dict[str, str]):
    code = """
import os, signal, sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupted())
from transmiter_cli.__main__ import main
main()
"""
    line = [COMMAND.parent / "python", "-c", code, "--help"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize(
    ("sent", "times", "code", "said"),
    [
        ("SIGINT", 1, 130, "Interrupted"),
        ("SIGINT", 3, 130, "Interrupted"),
        ("SIGTERM", 1, 143, "Terminated"),
        ("SIGHUP", 1, 129, "Hung up"),
    ],
)
def test_a_signal_ends_a_command_and_keeps_what_was_encoded(
    environment: dict[str, str], tmp_path: Path, sent: str, times: int, code: int, said: str
):
    line = [
        "fit",
        "--weak",
        "demo-weak",
        "--finetuned",
        "demo-finetuned",
        "--data",
        "demo-digits",
        "--epochs",
        "100000",
    ]

    def heard() -> None:  # where tests run in the background, or under nohup, they are ignored
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(
        [str(COMMAND), *line], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        try:
            for message in process.stderr:
                if message.startswith("demo-finetuned: "):
                    break
            time.sleep(2)
            for _ in range(times):  # `timeout` sends a signal twice
                process.send_signal(getattr(signal, sent))
                time.sleep(0.01)
            assert process.wait(timeout=60) == code
            assert f"{said}. What was encoded is kept" in process.stderr.read()
        finally:
            process.kill()
    assert list(Path(environment["TRANSMITER_CACHE"]).rglob("images/*.safetensors"))
    assert not (tmp_path / "transmiter-run/weak.safetensors").exists()


def test_what_goes_to_a_file_is_utf8_whatever_the_locale(transmiter: Transmiter, environment: dict, tmp_path: Path):
    transmiter("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--data", "demo-digits", "--epochs", 1)
    transmiter("transfer", "--strong", "demo-strong", "--method", "ridge")
    shutil.copy(open_images("demo-digits", "test").files[0].path, tmp_path / "λ.png")
    for form in ("csv", "jsonl"):
        line = [COMMAND, "predict", "λ.png", "--format", form]
        done = subprocess.run(
            line, cwd=tmp_path, env={**environment, "PYTHONIOENCODING": "cp1252"}, capture_output=True, check=True
        )
        assert "λ.png" in done.stdout.decode()


@pytest.mark.parametrize(
    ("closing", "code", "said"),
    [("eval --json >&-", 0, ""), ("predict --data demo-digits >&-", 0, ""), ("predict - <&-", 2, "no paths")],
)
def test_streams_that_the_caller_closed_lead_nowhere(
    demo: Demo, environment: dict[str, str], closing: str, code: int, said: str
):
    line = f"TRANSMITER_RUN=transmiter-demo {shlex.quote(str(COMMAND))} {closing}"
    done = subprocess.run(line, shell=True, cwd=demo[0], env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_failure(demo: Demo, environment: dict[str, str]):
    line = [COMMAND, "predict", "--run", "transmiter-demo", "--data", "demo-digits", "--top", "10", "--json"]
    with subprocess.Popen(line, cwd=demo[0], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout
        assert done.stderr
        assert json.loads(done.stdout.readline())["top"]
        done.stdout.close()
        said = done.stderr.read().decode()
    assert done.returncode == 128 + signal.SIGPIPE, said
    assert "Error" not in said


def test_predictions_of_files_with_any_name_are_manifests(transmiter: Transmiter, environment: dict, tmp_path: Path):
    transmiter("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--data", "demo-digits", "--epochs", 1)
    transmiter("transfer", "--strong", "demo-strong", "--method", "ridge")
    names = [os.fsdecode(b"latin-\xe9.png"), "new\nline.png", 'schön, "quoted".png']
    for file, name in zip(open_images("demo-digits", "test").files, names, strict=False):
        shutil.copy(file.path, tmp_path / name)

    def predict(form: str, *images: str) -> bytes:
        line = [COMMAND, "predict", *images, "--format", form]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout

    for form in ("csv", "jsonl"):
        first = predict(form, *names)
        (tmp_path / f"list.{form}").write_bytes(first)
        assert predict(form, "--data", f"list.{form}", "--strict") == first
    assert b"latin-\xe9.png" in predict("csv", *names)
    assert [json.loads(line)["image"] for line in predict("jsonl", *names).splitlines()] == names


def test_embeddings_in_a_file_go_with_the_texts_of_a_run(transmiter: Transmiter, demo: Demo, tmp_path: Path):
    flags = ("--data", "demo-digits", "--split", "test", "--out", "digits.safetensors")
    transmiter("embed", "--model", "demo-strong", *flags)
    adapted = tm.load(demo[0] / "transmiter-demo" / "strong-discriminant.safetensors")
    with safe_open(tmp_path / "digits.safetensors", framework="pt") as file:
        images, ids = file.get_tensor("demo-strong"), json.loads(file.metadata()["ids"])
    labels = torch.tensor([adapted.class_names.index(one.split("/")[-2]) for one in ids])
    rows = tm.evaluate(labels, strong=adapted.embeddings(images), transferred={"discriminant": adapted})
    shown = demo[1].stdout
    assert all(f"{100 * row.top1:.1f}" in shown for row in rows.values())
    assert rows["discriminant"].top1 > 0.9
