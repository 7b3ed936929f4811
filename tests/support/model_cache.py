"""Cache of model files of this run of the tests, so that a model is converted once for all its services and processes."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

#: Names the cache to the processes of pytest-xdist, which are started by one that has it already.
_VARIABLE = "TESTS_MODEL_CACHE"

if _VARIABLE not in os.environ:
    #: not of an earlier run, whose code may have converted in another way
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="inference-test-models-")
    atexit.register(shutil.rmtree, os.environ[_VARIABLE], ignore_errors=True)

MODEL_CACHE = Path(os.environ[_VARIABLE])

#: for the processes of a service; takes precedence over its configuration
CACHE_VARIABLE = {"INFERENCE_MODEL_FILES__CACHE_DIR": str(MODEL_CACHE)}
