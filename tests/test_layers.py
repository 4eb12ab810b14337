"""Data flow one way: each module of the package imports from those before it in this list alone."""

import ast
from pathlib import Path

import transmiter_cli

LAYERS = (
    *("errors", "names", "reporter", "files", "description", "demo", "method", "artefact", "api_checks"),
    *("api", "layout", "embedding", "record", "run", "task", "evaluation", "workflow", "bench", "report", "cli"),
    *("__main__", "__init__"),
)
METHOD = ("paper", "linear", "choice", "consensus")
"""The rooms of the method, after what they have in common: the paper's, linear classifiers, discriminant transfer."""
ROOT = Path(transmiter_cli.__file__).parent


def imported(path: Path, package: str) -> set[str]:
    """The parts of a package that a module imports from, imports under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            below = (node.module or "").removeprefix(package).split(".")[1:2]
            if id(node) not in typing_only:
                found |= set(below) or {name.name for name in node.names if name.name != "__version__"}
    return found


def test_each_layer_knows_only_those_before_it():
    for path in ROOT.rglob("*.py"):
        own = LAYERS.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
        later = {name for name in imported(path, "transmiter_cli") if LAYERS.index(name) > own}
        assert not later, f"{path} imports {later}"


def test_each_room_of_the_method_knows_only_those_before_it():
    """What is in no room is common ground, which knows none."""
    for path in (ROOT / "method").rglob("*.py"):
        room = path.relative_to(ROOT / "method").parts[0].removesuffix(".py")
        later = METHOD[METHOD.index(room) + 1 :] if room in METHOD else METHOD
        found = imported(path, "transmiter_cli.method") & {*later}
        assert not found, f"{path} imports {found}"
