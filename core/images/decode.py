"""Decodes one image file of unknown origin into an upright square of RGB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ehdnas.core.errors import DataError

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
MAX_PIXELS = 64_000_000
# Pillow also has readers that start other programs (EPS); only plain image formats are let near a file.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Hold back Pillow's own warnings, on odd metadata and on sizes that are refused here anyway.

    Warning filters belong to the process: enter this around the threads that decode, not within them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def image_size(file: Path) -> tuple[int, int]:
    """Return (width, height) from the header alone.

    Raises:
        DataError: the file is not an image, or has over 64 million pixels.
    """
    with _opened(file) as image:
        return image.size


def decode(file: Path, size: int) -> NDArray[np.uint8]:
    """Return an image as uint8 [size, size, 3]: upright by its EXIF, shorter side to `size`, centre cropped.

    Grey, palette and CMYK become RGB, 16-bit grey keeps its upper bits, and alpha is laid on white.

    Raises:
        DataError: it does not decode, is cut short, has over 64 million pixels, or is of 32-bit depth.
    """
    with _opened(file) as image:
        if image.mode in ("I", "F"):
            raise DataError(f"{file} has 32 bits a pixel, with no agreed range; save it as an 8-bit image")
        # A JPEG can be decoded at a fraction of its size; twice the target leaves the quality alone.
        image.draft("RGB", (2 * size, 2 * size))
        upright = _to_rgb(ImageOps.exif_transpose(image))
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{file} has over {MAX_PIXELS // 10**6} million pixels; shrink or remove it"
        ) from error
    except Exception as error:  # decoders of damaged files fail in every way there is
        reason = str(error).replace(repr(str(file)), "it").replace(str(file), "it") or type(error).__name__
        raise DataError(f"{file} does not decode ({reason}); replace or remove it") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
