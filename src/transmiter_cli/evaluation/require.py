"""Gates on an evaluation: 'discriminant.top1 >= strong.top1 + 0.02'.

    gate  = sum COMPARE sum          COMPARE: >=  <=  >  <
    sum   = term {("+" | "-") term}
    term  = NUMBER | ROW "." COLUMN | NUMBER "*" ROW "." COLUMN

ROW and COLUMN are those of --json; put spaces around + and -, which may occur in a row's name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transmiter_cli.errors import UsageError
from transmiter_cli.layout import PREDICTED_BY, ROWS, SWEPT_ROW
from transmiter_cli.names import resembling

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
TOKEN = re.compile(
    r"""\s*(?:
      (?P<name>   [A-Za-z_] (?: [\w@/:.=\-] | (?<=\de)\+ )* \.[a-z]\w* )  # the row of --reg 1e6 is reg=1e+06
    | (?P<number> (?: \d+\.?\d* | \.\d+ ) (?: [eE][+-]?\d+ )? )
    | (?P<sign>   [-+*] | [<>]=? )
    )\s*""",
    re.VERBOSE,
)
EXAMPLE = "--require 'discriminant.top1 >= strong.top1 + 0.02'"
UNLABELLED_EXAMPLE = "--require 'discriminant.agrees_strong >= 0.5'"
NO_RATES = ("nll", "fixed", "broken", "changed", "parameters", "flops", "models", "seconds", "sets")
"""Columns that may be above 1."""


@dataclass(frozen=True)
class Term:
    """A factor times a row's column; the factor alone where `row` is empty."""

    factor: float
    row: str = ""
    column: str = ""


@dataclass(frozen=True)
class Gate:
    """A comparison of two sums, and how it was written."""

    text: str
    left: tuple[Term, ...]
    comparison: str
    right: tuple[Term, ...]


@dataclass(frozen=True)
class GateResult:
    """A gate, what both of its sides were measured to be, and whether it is met.

    Attributes:
        note: what may be wrong with it: a number in percent beside rates, which are fractions.
    """

    gate: str
    left: float
    right: float
    met: bool
    note: str = ""


def parse_gate(text: str) -> Gate:
    """A gate as it was written.

    Raises:
        UsageError: if it is not of the grammar.
    """
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text.rstrip()):
        match = TOKEN.match(text, position)
        if match is None:
            raise malformed(text, f"{text[position:].strip()!r} is neither ROW.COLUMN nor a number nor a sign")
        tokens.append((str(match.lastgroup), str(match[str(match.lastgroup)])))
        position = match.end()
    places = [i for i, (_, token) in enumerate(tokens) if token in COMPARISONS]
    if len(places) != 1:
        raise malformed(text, "it needs one of >=, <=, >, <")
    (place,) = places
    sides = (parse_sum(tokens[:place], text), parse_sum(tokens[place + 1 :], text))
    return Gate(text, sides[0], tokens[place][1], sides[1])


def parse_sum(tokens: list[tuple[str, str]], text: str) -> tuple[Term, ...]:
    """Terms of one side; a minus goes into the factor."""
    terms: list[Term] = []
    rest = tokens if tokens and tokens[0][1] in "+-" else [("sign", "+"), *tokens]
    while rest:
        match rest:
            case [("sign", "+" | "-" as sign), ("number", number), ("sign", "*"), ("name", name), *rest]:
                terms.append(term(sign, float(number), name))
            case [("sign", "+" | "-" as sign), ("number", number), *rest]:
                terms.append(term(sign, float(number), ""))
            case [("sign", "+" | "-" as sign), ("name", name), *rest]:
                terms.append(term(sign, 1.0, name))
            case _:
                raise malformed(text, "a side is ROW.COLUMN or a number, or several joined by + or -")
    return tuple(terms)


def term(sign: str, factor: float, name: str) -> Term:
    """One term; the column is what follows the name's last point."""
    row, _, column = name.rpartition(".")
    return Term(-factor if sign == "-" else factor, row, column)


def malformed(text: str, why: str) -> UsageError:
    """The error for a gate that is not of the grammar."""
    return UsageError(f"--require {text!r} cannot be read: {why}.", EXAMPLE)


def require_names(gates: Sequence[Gate], rows: Sequence[str], columns: Sequence[str]) -> None:
    """Check the names of gates before anything is measured.

    Raises:
        UsageError: if one names a row that is not among `rows`, or a column that is not among `columns`.
    """
    for gate in gates:
        for one in (*gate.left, *gate.right):
            if one.row:
                require_name(one, gate, rows, columns)


def no_row(name: str, rows: Collection[str]) -> str:
    """What to say of a row that there is not: all that there are, and which is meant."""
    first = (
        f" {ROWS['adapter']} is the row of the first --reg." if name.startswith(SWEPT_ROW) else resembling(name, rows)
    )
    return f"there is no row {name!r}, only {', '.join(rows)}.{first}"


def require_name(one: Term, gate: Gate, rows: Collection[str], columns: Collection[str]) -> None:
    """Raise UsageError unless a term's row and column are among these; all are listed, the likeliest is named."""
    said = None
    if one.row not in rows:
        said = no_row(one.row, rows)
    elif one.column not in columns:
        meant = resembling(one.column, columns)
        where = "" if "top1" in columns else " without labels"
        said = f"{one.row} has no number {one.column!r}{where}, only {', '.join(columns)}.{meant}"
    if said is not None:
        example = EXAMPLE if "top1" in columns else UNLABELLED_EXAMPLE
        row = next((row for row in PREDICTED_BY if row in rows), "strong")
        raise UsageError(f"--require {gate.text!r}: {said}", example.replace("discriminant", row))


def judge(gate: Gate, rows: Mapping[str, Any]) -> GateResult:
    """Measure a gate on rows of an evaluation.

    Raises:
        UsageError: if it names a row or column that there is not, or whose value is not known; all are listed.
    """
    left, right = (sum(value(one, gate, rows) for one in side) for side in (gate.left, gate.right))
    terms = (*gate.left, *gate.right)
    percent = any(not one.row and abs(one.factor) > 1 for one in terms)
    rates = [one.column for one in terms if one.row and one.column not in NO_RATES]
    note = "rates are fractions: 0.05 is 5 points" if percent and rates else ""
    return GateResult(gate.text, left, right, COMPARISONS[gate.comparison](left, right), note)


def value(one: Term, gate: Gate, rows: Mapping[str, Any]) -> float:
    """What a term amounts to."""
    if not one.row:
        return one.factor
    row = rows.get(one.row, next(iter(rows.values())))
    known = {name: found for name, found in vars(row).items() if isinstance(found, int | float)}
    require_name(one, gate, rows, known)
    return one.factor * known[one.column]
