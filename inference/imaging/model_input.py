"""Conversion of decoded pixels to the input of a model's graph: dtype, order of channels, layout and scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.imaging.arrays import Pixels
from inference.models.pixel_scaling import PixelScaling
from inference.models.spec import ChannelOrder, InputSpec, Layout


def write_pixels(out: NDArray[Any], pixels: Pixels, spec: InputSpec) -> None:
    """Write pixels into `out` as the graph of `spec` takes them, in place and without a copy of the image.

    The scaled values differ from the formula in float64 by at most 1e-6 times the largest of its terms, e.g. 1e-6 for values
    from -1 to 1. A table with the value of each byte took four times as long, and so did one call for each channel.

    Args:
        out: a C-contiguous array of the shape `spec.array_shape` and the dtype of `spec`.
        pixels: (H, W, C) bytes, red first.
    """
    if spec.channel_order is ChannelOrder.BGR:
        planes = out if spec.layout is Layout.NCHW else np.moveaxis(out, -1, 0)
        for plane, colour in zip(planes, (2, 1, 0), strict=True):  # a reversed view of the pixels is read three times slower
            np.copyto(plane, pixels[..., colour])
    else:
        np.copyto(out, pixels.transpose(2, 0, 1) if spec.layout is Layout.NCHW else pixels)
    if spec.scaling is not None:
        _scale(out, spec.scaling, spec.layout)


def _scale(out: NDArray[np.float32], scaling: PixelScaling, layout: Layout) -> None:
    """Apply the affine map of each channel, to rows of whole lines: NumPy is slow on a last dimension of length 3."""
    # (C, H * W), or (H, W * C)
    rows = out.reshape(len(out), -1)
    factors, summands = np.array(scaling.factors, np.float32), np.array(scaling.summands, np.float32)
    if layout is Layout.NCHW:
        factors, summands = factors[:, np.newaxis], summands[:, np.newaxis]
    else:
        width = out.shape[1]
        factors, summands = np.tile(factors, width), np.tile(summands, width)
    rows *= factors
    if any(scaling.summands):
        rows += summands
