"""Data flow one way: each module of the package imports from those before it in this list alone."""

import ast
from pathlib import Path

import transmiter_cli

LAYERS = (
    *("errors", "names", "reporter", "files", "methods", "description", "demo", "method", "artefact", "api", "layout"),
    *("embedding", "record", "run", "task", "evaluation", "workflow", "bench", "report", "cli", "__main__", "__init__"),
)
ROOT = Path(transmiter_cli.__file__).parent


def imported(tree: ast.Module) -> set[str]:
    """The parts of the package that a module imports from, imports under TYPE_CHECKING left out."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transmiter_cli":
            below = (node.module or "").split(".")[1:2]
            if id(node) not in typing_only:
                found |= set(below) or {name.name for name in node.names if name.name != "__version__"}
    return found


def test_each_layer_knows_only_those_before_it():
    for path in ROOT.rglob("*.py"):
        own = LAYERS.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
        later = {name for name in imported(ast.parse(path.read_text(encoding="utf-8"))) if LAYERS.index(name) > own}
        assert not later, f"{path} imports {later}"
