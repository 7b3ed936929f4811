"""Models like models/digits, whose answers say which of them gave them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

DIGITS = Path(__file__).parent.parent.parent / "models" / "digits"

#: In a process of its own: TensorFlow takes seconds and hundreds of megabytes.
_ROLL = """
import sys
import keras
import numpy as np

_, source, *targets = sys.argv
for path, by in zip(targets[::2], targets[1::2]):
    model = keras.saving.load_model(source)
    last = model.layers[-1]
    last.set_weights([np.roll(weights, int(by), axis=-1) for weights in last.get_weights()])
    model.save(path)
"""

_WITHOUT_SOFTMAX = """
import sys
import keras

_, source, target = sys.argv
model = keras.saving.load_model(source)
model.layers[-1].activation = keras.activations.linear
model.save(target)
"""


def save_digits_without_softmax(file: Path) -> None:
    """Write the digits model so that it ends in logits."""
    command = [sys.executable, "-c", _WITHOUT_SOFTMAX, DIGITS / "digits.keras", file]
    subprocess.run(command, check=True, capture_output=True)


def roll_digits(files: dict[Path, int]) -> None:
    """Write the digits model with its classes rolled, by file: a digit d is class (d + by) % 10."""
    targets = [str(part) for pair in files.items() for part in pair]
    subprocess.run([sys.executable, "-c", _ROLL, DIGITS / "digits.keras", *targets], check=True, capture_output=True)


def describe_digits(folder: Path, name: str) -> None:
    """A model's folder of that name, but for its digits.keras."""
    folder.mkdir(parents=True)
    description = yaml.safe_load((DIGITS / "model.yaml").read_text(encoding="utf-8")) | {"name": name}
    (folder / "model.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    shutil.copy(DIGITS / "labels.txt", folder)
