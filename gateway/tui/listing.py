"""A table that is replaced once a second: only the lines on the screen are ever laid out.

Rows have keys. The cursor stays on its row's key while rows come, go and change places; on the
first row it stays on the first row, whichever that is, as one expects of a table sorted by what
happens. Column widths are fixed: nothing is measured. It knows no flow and no port.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

Cell = str | tuple[str, str]
"""Text, or text and its style as rich writes it ("bold red")."""
HEAD = Style(bold=True, underline=True)
FOCUSED_HEAD = Style(bold=True, reverse=True)
CURSOR = Style(reverse=True)


@dataclass(frozen=True)
class Column:
    """A column: ``name`` for messages, ``width`` in cells without the space between columns."""

    name: str
    title: str
    width: int
    right: bool = False


@dataclass(frozen=True)
class Row:
    """A row: ``key`` identifies it in this and in later contents."""

    key: str
    cells: Sequence[Cell]


class Listing(ScrollView, can_focus=True):
    """Columns under a head that stays; a cursor; keys and mouse."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "move(-1000000)", "First", show=False),
        Binding("end,G", "move(1000000)", "Last", show=False),
        Binding("left,h", "aside(-8)", "Left", show=False),
        Binding("right,l", "aside(8)", "Right", show=False),
        Binding("enter", "choose", "Details"),
    ]

    class Chosen(Message):
        """Enter or a second click on a row."""

        def __init__(self, listing: Listing, key: str) -> None:
            self.listing = listing
            self.key = key
            super().__init__()

        @property
        def control(self) -> Listing:
            return self.listing

    class HeadClicked(Message):
        """A click on a column's head."""

        def __init__(self, listing: Listing, column: Column) -> None:
            self.listing = listing
            self.column = column
            super().__init__()

        @property
        def control(self) -> Listing:
            return self.listing

    def __init__(self, columns: Sequence[Column], *, id: str) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.rows: Sequence[Row] = ()
        self.cursor = 0
        self._styles: dict[str, Style] = {}
        self._set_virtual_size()

    # -- contents

    def show(self, rows: Sequence[Row], columns: Sequence[Column] | None = None) -> None:
        """Replace the rows (and the columns)."""
        before, was_at = self.rows, self.cursor
        key = before[was_at].key if was_at and before else None
        self.rows = rows
        if key is not None:
            found = (n for n, row in enumerate(rows) if row.key == key)
            self.cursor = next(found, min(was_at, max(len(rows) - 1, 0)))
        if columns is not None and columns != self.columns:
            self.columns = columns
            self.refresh()
        self._set_virtual_size()
        if self.cursor != was_at:
            self._reveal()
            self.refresh()
        top = self.scroll_offset.y
        for number in range(top, top + self._visible):
            if _at(before, number) != _at(rows, number):  # over SSH, only what has changed
                self.refresh_line(number + 1)

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        return self.rows[self.cursor].key if self.rows else None

    def _set_virtual_size(self) -> None:
        width = sum(column.width + 1 for column in self.columns) - 1
        size = Size(width, len(self.rows) + 1)
        if size != self.virtual_size:
            self.virtual_size = size

    # -- drawing

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            style = FOCUSED_HEAD if self.has_focus else HEAD
            cells: Sequence[Cell] = [column.title for column in self.columns]
        else:
            number = self.scroll_offset.y + y - 1
            if number >= len(self.rows):
                return Strip.blank(width, self.rich_style)
            marked = number == self.cursor and self.has_focus
            style = CURSOR if marked else Style.null()
            cells = self.rows[number].cells
        left = self.scroll_offset.x
        strip = Strip(self._segments(cells)).crop_extend(left, left + width, None)
        return strip.apply_style(self.rich_style + style)

    def _segments(self, cells: Sequence[Cell]) -> list[Segment]:
        segments = []
        for column, cell in zip(self.columns, cells, strict=False):
            text, style = (cell, "") if isinstance(cell, str) else cell
            segments.append(Segment(_fitted(text, column) + " ", self._style(style)))
        return segments

    def _style(self, text: str) -> Style:
        style = self._styles.get(text)
        if style is None:
            style = self._styles[text] = Style.parse(text)
        return style

    # -- keys and mouse

    def action_move(self, count: int) -> None:
        """Move the cursor by so many rows."""
        self.cursor = max(0, min(self.cursor + count, len(self.rows) - 1))
        self._reveal()
        self.refresh()

    def action_page(self, count: int) -> None:
        """Move the cursor by so many screens."""
        self.action_move(count * max(self._visible - 1, 1))

    def action_aside(self, count: int) -> None:
        """Scroll sideways by so many cells."""
        self.scroll_to(x=self.scroll_offset.x + count, animate=False)

    def action_choose(self) -> None:
        """Notify that the row under the cursor was chosen."""
        key = self.chosen
        if key is not None:
            self.post_message(self.Chosen(self, key))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            column = self._column_at(event.x + self.scroll_offset.x)
            if column is not None:
                self.post_message(self.HeadClicked(self, column))
            return
        number = self.scroll_offset.y + event.y - 1
        if number < len(self.rows):
            self.cursor = number
            self.refresh()
            if event.chain > 1:
                self.action_choose()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def _column_at(self, x: int) -> Column | None:
        for column in self.columns:
            if x <= column.width:
                return column
            x -= column.width + 1
        return None

    @property
    def _visible(self) -> int:
        return max(self.scrollable_content_region.height - 1, 1)

    def _reveal(self) -> None:
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + self._visible:
            self.scroll_to(y=self.cursor - self._visible + 1, animate=False)


def _at(rows: Sequence[Row], number: int) -> Row | None:
    return rows[number] if number < len(rows) else None


def _fitted(text: str, column: Column) -> str:
    length = cell_len(text)
    if length > column.width:
        return set_cell_size(text, column.width - 1) + "…"
    if column.right:
        return " " * (column.width - length) + text
    return text + " " * (column.width - length)
