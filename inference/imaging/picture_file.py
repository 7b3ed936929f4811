"""A PNG, JPEG or WebP file reduced to the parts that concern its pixels; each format's module creates it."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.errors import InvalidImage

Size = tuple[int, int]


@dataclass(frozen=True)
class PictureFile:
    """An encoded picture without text, profiles, previews and later frames."""

    #: (width, height) as the header declares it; EXIF orientation is not applied
    size: Size
    #: a file of the same format for the decoder; without the pixels if only the header was requested
    encoded: bytes
    #: metadata that may hold the orientation, by Pillow's names: "exif" and "xmp"
    metadata: dict[str, bytes] = field(default_factory=dict)
    #: whether pixels may be missing at the end of the file, e.g. because it has no end marker
    end_is_doubtful: bool = False


def too_complex(subject: str) -> InvalidImage:
    """Create the error for a file that needs an unreasonable amount of work."""
    return InvalidImage(f"{subject} is not decoded", field="image", expected="an image as cameras and editors write it")


def truncated(label: str) -> InvalidImage:
    """Create the error for a file with missing pixels."""
    return InvalidImage(f"the {label} image is truncated", field="image", expected=f"a whole {label} file")
