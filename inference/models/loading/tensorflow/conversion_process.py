"""Process that converts a model for LiteRT, measures both libraries and ends.

`conversions` starts it as `python -m inference.models.loading.tensorflow.conversion_process DESCRIPTOR PARENT`, and holds the
other end of the socket pair.
"""

from __future__ import annotations

import contextlib
import os
import sys
from multiprocessing.connection import Connection

from inference.errors import InferenceError
from inference.models.loading.conversions import Converted
from inference.models.predictor.protocol import Failed
from inference.models.spec import ModelSpec
from inference.runtime.parent_watch import die_with_parent, live_for_parent
from inference.runtime.public_text import public_exception
from inference.settings import GpuSettings

#: A lower priority than the predictors have: a change of models does not take half of the cores from the serving ones.
_NICENESS = 5


def answer(spec: ModelSpec, batch_sizes: tuple[int, ...]) -> Converted | Failed:
    """Convert the model of `spec`, or say why it cannot be loaded. Raises MemoryError and OSError, see `convert_measured`."""
    from inference.models.loading.tensorflow.convert import convert_measured  # noqa: PLC0415 imports TensorFlow
    from inference.models.loading.tensorflow.devices import open_devices  # noqa: PLC0415 after this process can be ended

    open_devices({"cpu"}, GpuSettings(), {})
    try:
        return convert_measured(spec, batch_sizes)
    except InferenceError as error:
        return Failed(error.detail, error.public)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 the predictor must get an answer for any error
        return Failed(f"{type(error).__name__}: {error}", public_exception(error))


def main() -> None:
    die_with_parent(int(sys.argv[2]))
    live_for_parent()
    os.nice(_NICENESS)
    connection: Connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, ConnectionError):  # the predictor has gone
        connection.send(answer(*connection.recv()))


if __name__ == "__main__":
    main()
