"""Images as uint8 arrays, from an ``.npz`` or from a folder with one folder a class."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import TaskError

Pixels = npt.NDArray[np.uint8]

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, in memory or read when they are asked for.

    Attributes:
        source: An array (N, H, W, C) or the files.
        labels: (N,) class numbers, or None.
        size: Side in pixels to which images are brought; 0 keeps theirs.
        channels: Colour channels, 1 or 3.
    """

    source: Pixels | list[Path]
    labels: npt.NDArray[np.int64] | None
    size: int
    channels: int

    def __len__(self) -> int:
        return len(self.source)

    def pixels(self, index: int) -> Pixels:
        """One image, (H, W, C) uint8.

        Raises:
            TaskError: the file cannot be read as an image.
        """
        if isinstance(self.source, list):
            return _from_file(self.source[index], self.size)
        image: Pixels = self.source[index]
        return image

    def label(self, index: int) -> int:
        """The class number of one image; only sets read as labelled have them."""
        if self.labels is None:
            raise TaskError("these images have no labels; give a set with labels")
        return int(self.labels[index])


def read_images(path: Path, size: int, *, labelled: bool) -> ImageSet:
    """Read or index the images of a folder or an ``.npz``.

    Args:
        path: A folder (with one folder a class where labels are wanted) or an ``.npz`` holding
            ``x`` (N, H, W) or (N, H, W, C) uint8 and, where labels are wanted, ``y`` (N,).
        size: Side in pixels to bring images to; 0 keeps that of the files.
        labelled: Whether labels are needed.

    Raises:
        TaskError: nothing there, or not of that form.
    """
    if path.is_dir():
        return _from_folder(path, size, labelled)
    if not path.is_file():
        raise TaskError(f"images {path} do not exist; give a folder or an .npz file")
    return _from_npz(path, size, labelled)


def _from_npz(path: Path, size: int, labelled: bool) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {k: archive[k] for k in ("x", "y") if k in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise TaskError(f"{path} is damaged or not an .npz of plain arrays") from error
    pixels, labels = arrays.get("x"), arrays.get("y")
    if pixels is None or (labelled and labels is None):
        raise TaskError(f"{path} has no array '{'x' if pixels is None else 'y'}'")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or not len(pixels):
        raise TaskError(f"{path}: x is {pixels.dtype} {pixels.shape}, not uint8 (N, H, W, C)")
    if size and pixels.shape[1:3] != (size, size):
        raise TaskError(
            f"{path}: images are {pixels.shape[1]}x{pixels.shape[2]}, size is {size}; set size=0"
        )
    if not labelled or labels is None:
        return ImageSet(pixels, None, size, pixels.shape[3])
    if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
        raise TaskError(f"{path}: y is {labels.dtype} {labels.shape}, not one class for each image")
    return ImageSet(pixels, labels.astype(np.int64), size, pixels.shape[3])


def _from_folder(path: Path, size: int, labelled: bool) -> ImageSet:
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise TaskError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))})")
    if not size:
        raise TaskError(f"images of a folder need one size; add --set size=224 for {path}")
    _from_file(files[0], size)
    if not labelled:
        return ImageSet(files, None, size, 3)
    classes = sorted(f.name for f in path.iterdir() if f.is_dir())
    number = {name: index for index, name in enumerate(classes)}
    loose = [f for f in files if f.parent == path]
    if loose:
        raise TaskError(f"{loose[0]} is in no class folder; put each class into a folder of {path}")
    labels = np.array([number[f.relative_to(path).parts[0]] for f in files])
    return ImageSet(files, labels, size, 3)


def _from_file(path: Path, size: int) -> Pixels:
    """The image scaled so that its shorter side fits, cut to the middle square, as RGB."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise TaskError(
            "reading image files needs Pillow; run pip install 'edgeprune[image]'"
        ) from error
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
            return np.asarray(fitted, dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise TaskError(f"{path} cannot be read as an image") from error
