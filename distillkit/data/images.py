"""The one reader of pictures: upright, of the samples that a codec takes, or a clear error; 8-bit sRGB by default.

Other kinds are converted only on request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import DataError
from .content import FORMATS, Content, ImageFile, describe, open_image
from .named_colours import ColourError
from .profiles import find_problem
from .rgb import upright_srgb
from .samples import RGB, Samples
from .stored import Stored, is_numpy, open_stored

_NUM_NAMED = 5
_GREY = Samples(1, 8)


@dataclass(frozen=True)
class ImageProblem:
    """Why one file cannot be used.

    Attributes:
        path: the file.
        message: what was expected, what was got and what to do, as one sentence.
        convertible: whether `convert` would help.
    """

    path: ImageFile
    message: str
    convertible: bool = False

    def __str__(self) -> str:
        return f"image {self.path}: {self.message}"


class Survey(NamedTuple):
    """What `survey` found by the headers: the files that cannot be used, and how many of each kind are converted."""

    problems: list[ImageProblem]
    converted: Counter[str]


def read_image(
    path: str | ImageFile, min_side: int = 1, *, convert: bool = False, samples: Samples = RGB
) -> NDArray[Any]:
    """Return the picture in `path`, upright by its EXIF orientation: by default in sRGB, uint8, shape (H, W, 3).

    An embedded colour profile that differs from sRGB's is applied. Other samples are read unchanged, from 0 to 2^bits -
    1, from PNG, TIFF or NumPy's `.npy` (shape (H, W) or (H, W, C)).

    Args:
        path: an image file, or an image in a shard.
        min_side: the least height and width in pixels.
        convert: take other kinds of picture too: 16 bits per channel are cut to 8, transparency is laid on white, grey,
            palette and CMYK pictures become RGB, the first of several frames is taken, and a colour profile that cannot
            be used is ignored. For one channel of 8 bits the result is made grey; for other samples `convert` has no
            effect.
        samples: that are wanted.

    Returns:
        uint8, or uint16 of samples of more than 8 bits, shape (H, W, C).

    Raises:
        DataError: the file is unreadable or truncated, of a kind that has to be converted, or too small.
    """
    path = Path(path) if isinstance(path, str) else path
    if samples != RGB or is_numpy(path):
        with _reported(path):
            stored, problem = _look(path, samples, min_side, convert)
            if stored is not None and problem is None:
                return _values(path, stored, samples)
        if problem is not None:
            raise BadImageError(problem)
        return np.array(Image.fromarray(read_image(path, min_side, convert=True)).convert("L"))[:, :, None]
    with _opened(path) as image:
        content = describe(path, image)
        if (problem := _find_problem(path, image, content, min_side, convert)) is not None:
            raise BadImageError(problem)
        return upright_srgb(image, content, convert)


def image_size(path: ImageFile, samples: Samples = RGB) -> tuple[int, int]:
    """Return height and width in pixels, as they are stored, by the header.

    Args:
        path: image file.
        samples: that it is read with.

    Raises:
        DataError: the file is no picture.
    """
    if samples != RGB or is_numpy(path):
        with _reported(path):
            stored = open_stored(path)
        return stored.height, stored.width
    with _opened(path) as image:
        return image.height, image.width


def check_image(path: ImageFile, min_side: int = 1, *, convert: bool = False) -> ImageProblem | None:
    """Return what is wrong with the header of `path`, or None; only `read_image` notices damaged pixels."""
    problems = survey([path], min_side, convert=convert).problems
    return problems[0] if problems else None


def survey(paths: Sequence[ImageFile], min_side: int = 1, *, convert: bool = False, samples: Samples = RGB) -> Survey:
    """Look at the headers of all `paths`; leave those with problems out to skip them.

    Args:
        paths: image files, or images in shards.
        min_side: the least height and width in pixels.
        convert: whether they will be read so.
        samples: that are wanted.
    """
    found = Survey([], Counter())
    for path in paths:
        size: Any = getattr(path, "verified_size", None)
        if size is not None and getattr(path, "verified_samples", RGB) == samples:  # by `pack`
            problem = _too_small(path, size, min_side)
        elif samples != RGB or is_numpy(path):
            try:
                with _reported(path):
                    stored, problem = _look(path, samples, min_side, convert)
                if stored is None and problem is None:
                    found.converted["other pictures"] += 1
            except BadImageError as error:
                problem = error.problem
        else:
            try:
                with _opened(path) as image:
                    content = describe(path, image)
                    problem = _find_problem(path, image, content, min_side, convert)
                    if problem is None and (kind := _converted_kind(content)):
                        found.converted[kind] += 1
            except BadImageError as error:
                problem = error.problem
        if problem is not None:
            found.problems.append(problem)
    return found


def check_images(
    paths: Sequence[ImageFile],
    min_side: int = 1,
    *,
    convert: bool = False,
    pixels: bool = False,
    samples: Samples = RGB,
) -> None:
    """Check all `paths` by their headers, or by reading them.

    Args:
        paths: image files, or images in shards.
        min_side: the least height and width in pixels.
        convert: whether they will be read so.
        pixels: read each, too, so that damaged pixels are found.
        samples: that are wanted.

    Raises:
        DataError: some cannot be used; the first five are named.
    """
    problems = survey(paths, min_side, convert=convert, samples=samples).problems
    if pixels:
        bad = {problem.path for problem in problems}
        problems += [problem for path in paths if path not in bad and (problem := _damage(path, convert, samples))]
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:_NUM_NAMED]]
    if len(problems) > _NUM_NAMED:
        lines.append(f"  ... and {len(problems) - _NUM_NAMED} more.")
    others = ", data.convert = true to convert other kinds" if any(each.convertible for each in problems) else ""
    raise DataError(
        f"images: expected all {len(paths)} to be {samples} of at least {min_side} pixels per side, got "
        f"{len(problems)} that cannot be used; fix or remove them. "
        f'In a recipe, set data.bad_images = "skip" to leave them out{others}:'
        "\n" + "\n".join(lines)
    )


class BadImageError(DataError):
    """An image cannot be used.

    Attributes:
        problem: why.
    """

    def __init__(self, problem: ImageProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type[BadImageError], tuple[ImageProblem]]:
        return type(self), (self.problem,)


@contextmanager
def _opened(path: ImageFile) -> Generator[Image.Image]:
    with _reported(path), open_image(path) as image:
        yield image


@contextmanager
def _reported(path: ImageFile) -> Generator[None]:
    """Make a `BadImageError` of whatever is raised inside."""
    convertible = False
    try:
        yield
    except (DataError, MemoryError):  # a lack of memory is no fault of the picture
        raise
    except Exception as error:  # Pillow's decoders raise all sorts: OSError, SyntaxError, ValueError, struct.error
        match error:
            case Image.DecompressionBombError():
                problem = f"expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more ({error}); cut it into parts."
            case UnidentifiedImageError():
                problem = f"expected a picture ({', '.join(FORMATS)}), got something else; save it again or remove it."
            case ColourError():
                problem, convertible = _profile_message(str(error)), True
            case _:
                problem = f"expected a readable image, got {type(error).__name__}: {error}; save it again or remove it."
        raise BadImageError(ImageProblem(path, problem, convertible)) from error


def _look(path: ImageFile, samples: Samples, min_side: int, convert: bool) -> tuple[Stored | None, ImageProblem | None]:
    """Return what a file holds, unchanged, or what is wrong with it; neither for a picture that becomes grey."""
    stored = None
    try:
        stored = open_stored(path)
        message = stored.problem(samples)
    except ValueError as error:
        message = f"expected {samples}, got {error}."
    if stored is not None and message is None:
        return stored, _too_small(path, (stored.width, stored.height), min_side)
    convertible = samples == _GREY and not is_numpy(path)
    if convertible and convert:
        return None, next(iter(survey([path], min_side, convert=True).problems), None)
    return None, ImageProblem(path, message or "", convertible)


def _values(path: ImageFile, stored: Stored, samples: Samples) -> NDArray[Any]:
    values = np.array(stored.read(), samples.dtype, order="C")  # a copy, for torch wants what it may write to
    if (highest := int(values.max())) > samples.peak:
        message = f"expected values up to {samples.peak}, for {samples}, got {highest}; scale or remove it."
        raise BadImageError(ImageProblem(path, message))
    return values


def _damage(path: ImageFile, convert: bool, samples: Samples) -> ImageProblem | None:
    try:
        read_image(path, convert=convert, samples=samples)
    except BadImageError as error:
        return error.problem
    return None


def _converted_kind(content: Content) -> str:
    kinds = [content.kind] if content.kind != "RGB" else []
    return ", ".join([*kinds, *(["several frames"] if content.frames > 1 else [])])


def _find_problem(
    path: ImageFile, image: Image.Image, content: Content, min_side: int, convert: bool
) -> ImageProblem | None:
    if not (content.is_plain or (convert and content.has_white)):
        got = _converted_kind(content)
        advice = "convert it to 8-bit RGB or remove it."
        return ImageProblem(path, f"expected 8-bit RGB, got {got}; {advice}", content.has_white)
    if not convert and (problem := _profile_problem(content)):
        return ImageProblem(path, _profile_message(problem), convertible=True)
    return _too_small(path, image.size, min_side)


def _profile_problem(content: Content) -> str | None:
    """Return what is wrong with the colours of a picture of 8-bit RGB."""
    return content.unknown_colours or (content.profile and find_problem(content.profile, "RGB")) or None


def _profile_message(problem: str) -> str:
    return f"expected colours that can become sRGB, got {problem}; save it as sRGB, or remove its profile."


def _too_small(path: ImageFile, size: tuple[int, int], min_side: int) -> ImageProblem | None:
    if min(size) >= min_side:
        return None
    least, got = f"{min_side}x{min_side}", f"{size[0]}x{size[1]}"
    return ImageProblem(
        path, f"expected at least {least} pixels (the crop), got {got}; remove it or take a smaller crop."
    )
