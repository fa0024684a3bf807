"""Where progress is shown: a terminal, a notebook, or lines of text."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...errors import printable


@final
@dataclass(frozen=True)
class Moment:
    """How far a run is.

    Attributes:
        run: its name.
        phase: name of its phase.
        step: steps done.
        num_steps: steps of the whole run.
        figures: what was measured.
        seconds_left: until the run is done, or None where that is not known.
    """

    run: str
    phase: str
    step: int
    num_steps: int
    figures: str
    seconds_left: float | None


class Screen(Protocol):
    """Shows one run."""

    def show(self, moment: Moment) -> None:
        """Show how far it is."""
        ...

    def close(self) -> None:
        """Leave the last state visible."""
        ...


def screen_for(console: Console) -> Screen:
    """Return the screen that suits a console."""
    if console.is_jupyter and not console.quiet:
        return _Notebook()
    return _Terminal(console) if console.is_terminal else _Lines(console)


def duration(seconds: float) -> str:
    """Return a time as `48 s`, `7:12 min` or `3:07 h`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{minutes // 60}:{minutes % 60:02} h"


@final
class _Lines:
    """A line for each moment with figures: for files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, moment: Moment) -> None:
        if moment.figures:
            left = "" if moment.seconds_left is None else f"  {duration(moment.seconds_left)} left"
            name = f"{moment.run}  {moment.phase}  step {moment.step}/{moment.num_steps}"
            self._console.print(printable(f"{name}  {moment.figures}{left}"), highlight=False, soft_wrap=True)

    def close(self) -> None:
        pass


class _Newest:
    """The newest moment, with the time since then subtracted from the time left."""

    def __init__(self) -> None:
        self.moment: Moment | None = None
        self._started = self._at = monotonic()

    def take(self, moment: Moment) -> None:
        if moment.seconds_left is None and self.moment is not None and self.moment.seconds_left is not None:
            moment = replace(moment, seconds_left=self.moment.seconds_left - monotonic() + self._at)
        self.moment, self._at = moment, monotonic()

    @property
    def times(self) -> str:
        """Time taken and time left."""
        assert self.moment is not None
        taken = duration(monotonic() - self._started)
        if self.moment.seconds_left is None:
            return taken
        return f"{taken}, {duration(max(0.0, self.moment.seconds_left - monotonic() + self._at))} left"


@final
class _Terminal(_Newest):
    """Two lines that stay where they are: a bar, and the figures."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def show(self, moment: Moment) -> None:
        self.take(moment)
        if not self._live.is_started:
            self._live.start()

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        if self.moment is None:
            return Text()
        numbers = f"{self.moment.step}/{self.moment.num_steps}"
        name = printable(f"{self.moment.run}  {self.moment.phase}".strip())
        room = self._live.console.width - len(name) - len(numbers) - len(self.times) - 3
        line = Table.grid(padding=(0, 1))
        line.add_column(overflow="fold")  # the name takes two lines where there is little room
        cells: list[RenderableType] = [Text(name, style="bold")]
        if room >= 8:
            line.add_column(no_wrap=True)
            cells.append(ProgressBar(self.moment.num_steps, self.moment.step, width=min(24, room)))
        for text in (numbers, self.times):
            line.add_column(no_wrap=True)
            cells.append(Text(text))
        line.add_row(*cells)
        return Group(line, Text(printable(self.moment.figures), overflow="fold"))


@final
class _Notebook(_Newest):
    """One output of the cell, changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self._handle: Any = None

    def show(self, moment: Moment) -> None:
        from IPython import display  # pyright: ignore[reportMissingImports]

        self.take(moment)
        shown: Any = display.HTML(self._html())
        if self._handle is None:
            self._handle = display.display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def close(self) -> None:
        pass

    def _html(self) -> str:
        assert self.moment is not None
        moment = self.moment
        title = html.escape(printable(f"{moment.run}  {moment.phase}"))
        return (
            f'<div><b>{title}</b> <progress value="{moment.step}" max="{moment.num_steps}"></progress> '
            f"{moment.step}/{moment.num_steps}, {self.times}<br>{html.escape(printable(moment.figures))}</div>"
        )
