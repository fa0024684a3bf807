"""Tables in a terminal of any width: words fold, figures are never cut."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

_NAME_WIDTH = 14  #: what a column of words is left with, at least


@final
class FittedTable(Table):
    """A table that fits wherever it is printed.

    Columns of words fold and columns of figures (aligned to the right) keep their width. Figures for which there is no
    room beside the names follow in another table below, again beside the names.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or several."""
        for part in _parts(self, console, options.max_width):
            yield from Table.__rich_console__(part, console, options)

    def __str__(self) -> str:
        """Return what `print` shows: the table as text, as wide as the terminal."""
        console = Console(markup=False, emoji=False, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip("\n")


def _parts(table: Table, console: Console, width: int) -> Iterator[Table]:
    widths = [_width(table, place, console) for place in range(len(table.columns))]
    names = _num_names(table)
    room = width - sum(min(wide, _NAME_WIDTH) for wide in widths[:names]) - (3 if table.pad_edge else 1)
    groups: list[list[int]] = [[]]
    taken = 0
    for place, wide in enumerate(widths[names:], names):
        needed = wide if table.columns[place].justify == "right" else min(wide, _NAME_WIDTH)
        if groups[-1] and taken + needed > room:
            groups.append([])
            taken = 0
        groups[-1].append(place)
        taken += needed
    for number, group in enumerate(groups):
        yield _part(table, [*range(names), *group], number == 0, number == len(groups) - 1)


def _num_names(table: Table) -> int:
    """Return the number of columns before the first one of figures, one at least: together they name a row."""
    figures = (place for place, column in enumerate(table.columns) if column.justify == "right")
    return max(1, next(figures, 1))


def _width(table: Table, place: int, console: Console) -> int:
    """Return the width of a column with its padding where nothing in it is folded or cut."""
    column = table.columns[place]
    cells = [column.header, *column.cells]
    lines = [line for cell in cells for line in console.render_str(str(cell)).plain.splitlines()]
    _, right, _, left = table.padding
    between = max(left, right) if table.collapse_padding else left + right
    return max(map(cell_len, lines), default=0) + between + (table.box is not None)


def _part(table: Table, places: list[int], begins: bool, ends: bool) -> Table:
    """Return a table of some columns of another one; the title is above the first, the caption below the last."""
    part = copy(table)
    part.title = table.title if begins else None
    part.caption = table.caption if ends else None
    part.columns = []
    for index, place in enumerate(places):
        column = copy(table.columns[place])
        column._index = index  # pyright: ignore[reportPrivateUsage]
        is_figure = index > 0 and column.justify == "right"
        column.no_wrap, column.overflow = (True, "ellipsis") if is_figure else (False, "fold")
        part.columns.append(column)
    return part
