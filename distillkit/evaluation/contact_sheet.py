"""Pictures side by side: each original and what every model made of it, with rate and quality underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data.images import read_image
from ..data.samples import RGB, Samples
from .results import ImageResult

_WIDTH = 400  # of a picture on the sheet, in pixels
_CAPTION = 44
_GAP = 8
_MAX_ROWS = 8


def save_contact_sheet(
    images: Sequence[Path],
    measured: Mapping[str, Sequence[ImageResult]],
    folder: Path,
    path: Path,
    samples: Samples = RGB,
) -> None:
    """Draw one row per picture: the original, then each model's; below it, the piece with most detail, enlarged twice.

    Args:
        images: the originals; the first eight are drawn.
        measured: name of a codec -> what was measured on those pictures, in their order.
        folder: where the decoded pictures are, as `<name>/<picture>.png` or `.tif`.
        path: the PNG to write.
        samples: of the pictures; what `Samples.preview` shows of them is drawn.
    """
    rows = []
    for index, source in enumerate(images[:_MAX_ROWS]):
        original = samples.preview(read_image(source, samples=samples))
        box = _detailed_piece(original)
        cells = [_cell(original, box, source.stem, "original")]
        for name, results in measured.items():
            result = results[index]
            file = folder / name / f"{result.name}{samples.suffix}"
            decoded = samples.preview(read_image(file, samples=samples))
            cells.append(_cell(decoded, box, name, f"{result.rate_bpp:.3f} bpp   {result.psnr_db:.2f} dB"))
        rows.append(_join(cells, horizontal=True))
    _join(rows, horizontal=False).save(path)


def _cell(picture: NDArray[Any], box: tuple[int, int, int], title: str, numbers: str) -> Image.Image:
    height, width, _ = picture.shape
    scale = min(_WIDTH / width, 2 * _WIDTH / height)  # one that is far higher than wide does not fill the width
    size = max(1, round(width * scale)), max(1, round(height * scale))
    whole = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    top, left, side = box
    piece = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    piece = piece.resize((_WIDTH, _WIDTH), Image.Resampling.NEAREST)
    cell = Image.new("RGB", (_WIDTH, whole.height + _GAP + piece.height + _CAPTION), "white")
    cell.paste(whole, (0, 0))
    cell.paste(piece, (0, whole.height + _GAP))
    draw = ImageDraw.Draw(cell)
    draw.text((4, cell.height - _CAPTION + 4), title, "black", ImageFont.load_default(16))
    draw.text((4, cell.height - _CAPTION + 24), numbers, "dimgrey", ImageFont.load_default(14))
    return cell


def _detailed_piece(picture: NDArray[Any]) -> tuple[int, int, int]:
    """Return top, left and side of the square with the steepest changes of brightness."""
    height, width, _ = picture.shape
    side = min(_WIDTH // 2, height, width)
    grey = picture.mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    step = max(1, side // 4)
    places = [(t, x) for t in range(0, height - side + 1, step) for x in range(0, width - side + 1, step)]
    top, left = max(places, key=lambda place: detail[place[0] : place[0] + side, place[1] : place[1] + side].sum())
    return top, left, side


def _join(parts: Sequence[Image.Image], horizontal: bool) -> Image.Image:
    along, across = (0, 1) if horizontal else (1, 0)
    size = [0, 0]
    size[along] = sum(part.size[along] for part in parts) + _GAP * (len(parts) - 1)
    size[across] = max(part.size[across] for part in parts)
    sheet = Image.new("RGB", (size[0], size[1]), "white")
    offset = [0, 0]
    for part in parts:
        sheet.paste(part, (offset[0], offset[1]))
        offset[along] += part.size[along] + _GAP
    return sheet
