"""Rows of figures as Markdown."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def table(rows: list[Row]) -> list[str]:
    """The lines of a table of rows with the same keys."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(value: object) -> str:
    """A number as people read it: three digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
