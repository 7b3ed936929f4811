"""Device that a model runs on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    #: name in the form of `tf.device`
    name: str
    is_gpu: bool = False

    @property
    def half_precision(self) -> str:
        """Keras policy of the 16-bit float type that is fast on the device."""
        return "mixed_float16" if self.is_gpu else "mixed_bfloat16"


CPU = Device("/CPU:0")
