"""A patient summary on paper: a PDF with its signed QR code.

Rule of this file: the page holds what the summary's headings say, in order, newest first, and
who made it when; a reader checks the code, not the paper. The same summary gives the same bytes.
Made by reportlab (BSD; the extra ``print``), which is loaded when something is printed. Chinese is
set in a font file of this machine, embedded and reduced to the characters that occur, if there
is one (``FONTS``, or the caller's); else in one that PDF viewers bring themselves
(``STSong-Light``), and then the name stands in Latin letters too. No font is shipped.
Implements ``docs/protocols/summary.md``, clause 16.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from p2pmed.errors import ConfigError
from p2pmed.medical.care.summary_parts import day_of
from p2pmed.medical.privacy.romanise import is_han, latin, pinyin

__all__ = ["PAGES_MAX", "Sheet", "print_sheet"]

PAGES_MAX: Final = 20
FONT_BYTES_MAX: Final = 40 * 1024 * 1024
A4: Final = (595.28, 841.89)
"""Points: 210 x 297 mm."""
MARGIN: Final = 51.0
BODY, SMALL, HEAD, TITLE = 9.5, 8.0, 11.5, 16.0
LEADING: Final = 1.35
CODE_SIDE: Final = 170.0
"""Six centimetres: a module of a full code is then half a millimetre wide."""
LATIN: Final = "Helvetica"
VIEWERS_OWN: Final = "STSong-Light"
"""Adobe-GB1: every viewer with Chinese fonts at all shows it; others leave it blank."""
FONTS: Final = (
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/arphic/uming.ttc",
    "C:/Windows/Fonts/msyh.ttc",
    "C:/Windows/Fonts/simhei.ttf",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "/System/Library/Fonts/STHeiti Light.ttc",
)
"""Fonts with Chinese and TrueType outlines, where Debian, Windows and macOS put them."""
NOTE: Final = "Scan the code with `p2pmed verify --qr` to check who signed this."


class Sheet:
    """What is printed."""

    def __init__(
        self,
        *,
        person: dict[str, str],
        made_ms: int,
        maker: str,
        headings: Sequence[tuple[str, Sequence[str]]],
        notes: Sequence[str],
        code: str,
    ) -> None:
        self.person = person
        """``name``, ``birth_date``, ``gender``."""
        self.made_ms = made_ms
        self.maker = maker
        self.headings = headings
        """Title and lines, in order."""
        self.notes = notes
        self.code = code

    @property
    def is_latin(self) -> bool:
        """Whether Helvetica has every character of it."""
        lines = (line for title, found in self.headings for line in (title, *found))
        return all(map(_is_latin, (*self.person.values(), self.maker, *self.notes, *lines)))

    def __repr__(self) -> str:
        return f"<Sheet of {len(self.headings)} headings>"


def print_sheet(sheet: Sheet, *, font: Path | None = None) -> bytes:
    """The PDF. ``font`` is a TrueType file to embed in the place of the viewer's own.

    Raises ``ConfigError`` if reportlab is not installed, or the font cannot be embedded.
    """
    try:
        from reportlab.pdfgen.canvas import Canvas
    except ImportError:
        raise ConfigError(
            "printing needs the package reportlab", hint="pip install 'p2pmed[print]'"
        ) from None
    into = BytesIO()
    canvas = Canvas(into, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle(f"Patient summary as of {day_of(sheet.made_ms)}")
    page = _Page(canvas, _wide_font(font, sheet))
    page.head(sheet)
    for title, lines in sheet.headings:
        page.heading(title, lines)
    page.notes(sheet.notes)
    canvas.save()
    return into.getvalue()


def _wide_font(path: Path | None, sheet: Sheet) -> str:
    """The name of a registered font for what Helvetica does not have."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    if path is not None:
        return _embedded(path)
    if sheet.is_latin:
        return LATIN
    for known in map(Path, FONTS):
        if known.is_file():
            with contextlib.suppress(ConfigError, OSError):
                return _embedded(known)
    pdfmetrics.registerFont(UnicodeCIDFont(VIEWERS_OWN))
    return VIEWERS_OWN


def _embedded(path: Path) -> str:
    """Register a font file. Raises ``ConfigError`` if it cannot be embedded."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    if not path.is_file() or path.stat().st_size > FONT_BYTES_MAX:
        raise ConfigError(f"{path}: no font file of at most {FONT_BYTES_MAX} bytes")
    name = f"file-{path.stem}"
    try:
        pdfmetrics.registerFont(TTFont(name, str(path)))
    except (TTFError, ValueError, KeyError, IndexError, struct.error):
        raise ConfigError(
            f"{path}: not a font that can be embedded",
            hint="TrueType outlines are needed (.ttf); fonts with PostScript outlines are not read",
        ) from None
    return name


def _in_latin(name: str) -> str:
    """A name as it is read: pinyin for Han, letters for letters."""
    words = [latin(word) if not is_han(word[0]) else pinyin(word) for word in name.split()]
    return " ".join(word for word in words if word).title()


def _is_latin(text: str) -> bool:
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


class _Page:
    """Where the pen stands."""

    def __init__(self, canvas: Any, wide: str) -> None:
        self._canvas = canvas
        self._wide = wide
        self._y = A4[1] - MARGIN
        self._right = A4[0] - MARGIN
        """Where lines end: further left beside the code."""
        self._beside = 0.0
        self._pages = 1

    def head(self, sheet: Sheet) -> None:
        """Whose summary, as of when, by whom, and the code."""
        self._code(sheet.code)
        name = sheet.person["name"] or "(no name)"
        self._write(name, TITLE)
        if self._wide == VIEWERS_OWN and not _is_latin(name):
            # Where the viewer has no such font either, the sheet must still say whose it is.
            self._write(_in_latin(name), HEAD)
        born = sheet.person["birth_date"] or "unknown"
        self._write(f"born {born}, {sheet.person['gender'] or 'gender unknown'}", BODY)
        self._write(f"Patient summary as of {day_of(sheet.made_ms)}", BODY)
        self._write(f"made by {sheet.maker}", BODY)
        self._write(NOTE, SMALL)

    def heading(self, title: str, lines: Sequence[str]) -> None:
        """One section: never its title alone at the foot of a page."""
        self._need(HEAD * LEADING + 2 * BODY * LEADING)
        self._y -= BODY * 0.6
        self._write(title, HEAD)
        for line in lines or ("nothing in the records at hand",):
            self._write(f"·  {line}", BODY, indent=10)

    def notes(self, notes: Sequence[str]) -> None:
        """What the reader must know of the whole."""
        self._y -= BODY
        for note in notes:
            self._write(note, SMALL)

    # --- the pen ------------------------------------------------------------------------------

    def _write(self, text: str, size: float, indent: float = 0.0) -> None:
        for line in self._broken(text, size, indent):
            self._need(size * LEADING)
            if self._pages > PAGES_MAX:
                return
            self._y -= size * LEADING
            x = MARGIN + indent
            for run, font in self._runs(line):
                self._canvas.setFont(font, size)
                self._canvas.drawString(x, self._y, run)
                x += self._width(run, font, size)

    def _need(self, height: float) -> None:
        """Begin a page if the next lines do not fit on this one."""
        if self._beside and self._y - height < self._beside:
            self._y, self._beside, self._right = min(self._y, self._beside), 0.0, A4[0] - MARGIN
        if self._y - height < MARGIN and self._pages <= PAGES_MAX:
            self._canvas.showPage()
            self._pages += 1
            self._y, self._beside, self._right = A4[1] - MARGIN, 0.0, A4[0] - MARGIN

    def _broken(self, text: str, size: float, indent: float) -> list[str]:
        """``text`` in lines that fit: at a space, or before any character of another script."""
        room, lines, line, width, space = self._right - MARGIN - indent, [], "", 0.0, -1
        for char in text:
            width += sum(self._width(run, font, size) for run, font in self._runs(char))
            if width > room and line:
                cut = space if space > 0 else len(line)
                lines.append(line[:cut].rstrip())
                line, space = line[cut:].lstrip(), -1
                width = sum(self._width(run, font, size) for run, font in self._runs(line + char))
            line += char
            if char == " " or ord(char) > 0x2E80:
                space = len(line)
        return [*lines, line] if line or not lines else lines

    def _runs(self, text: str) -> list[tuple[str, str]]:
        """Pieces of one font each: Helvetica for what it has."""
        runs: list[tuple[str, str]] = []
        for char in text:
            font = LATIN if _is_latin(char) else self._wide
            if runs and runs[-1][1] == font:
                runs[-1] = (runs[-1][0] + char, font)
            else:
                runs.append((char, font))
        return runs

    def _width(self, text: str, font: str, size: float) -> float:
        return float(self._canvas.stringWidth(text, font, size))

    def _code(self, text: str) -> None:
        """The QR code, at the right: one rectangle for each run of dark modules."""
        import segno

        rows = segno.make(text, error="m", micro=False, boost_error=False).matrix
        module = CODE_SIDE / len(rows)
        left, top = A4[0] - MARGIN - CODE_SIDE, self._y
        self._canvas.setFillGray(0)
        for number, row in enumerate(rows):
            start = None
            for column, dark in enumerate((*row, 0)):
                if dark and start is None:
                    start = column
                elif not dark and start is not None:
                    width = (column - start) * module
                    y = top - (number + 1) * module
                    self._canvas.rect(left + start * module, y, width, module, stroke=0, fill=1)
                    start = None
        self._right = left - 4 * module
        self._beside = top - CODE_SIDE
