"""Cache of model files of this run of the tests, so that a model is converted once for all services and tests."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

#: not of an earlier run, whose code may have converted in another way
MODEL_CACHE = Path(tempfile.mkdtemp(prefix="inference-test-models-"))
atexit.register(shutil.rmtree, MODEL_CACHE, ignore_errors=True)

#: for the processes of a service; takes precedence over its configuration
CACHE_VARIABLE = {"INFERENCE_MODEL_FILES__CACHE_DIR": str(MODEL_CACHE)}
