"""A PNG, JPEG or WebP file reduced to what concerns its pixels, as the module of each format makes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.errors import InvalidImage

Size = tuple[int, int]


@dataclass(frozen=True)
class PictureFile:
    """An encoded picture without the text, profiles, previews and later frames that its file may have."""

    #: (width, height) as the header declares it; EXIF orientation is not applied
    size: Size
    #: a file of the same format for the decoder; without the pixels where only the header was asked for
    encoded: bytes
    #: bytes where the orientation may be, by Pillow's names: "exif" and "xmp"
    metadata: dict[str, bytes] = field(default_factory=dict)
    #: whether the file gives a reason to look whether pixels are missing at its end, e.g. no end marker
    end_is_doubtful: bool = False


def too_complex(what: str) -> InvalidImage:
    """Refusal of a file that asks for an unreasonable amount of work."""
    return InvalidImage(f"{what} is not decoded", field="image", expected="an image as cameras and editors write it")


def truncated(label: str) -> InvalidImage:
    """Refusal of a file whose pixels are not all there."""
    return InvalidImage(f"the {label} image is truncated", field="image", expected=f"a whole {label} file")
