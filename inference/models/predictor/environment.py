"""Environment variables of the predictor process, which runs model files that may contain code.

The worker's variables hold passwords of its servers, so only variables on a list are passed: variables that configure the system,
Python, TensorFlow and its libraries. The first message (`protocol.Load`) contains everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TZDIR", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"})
_PREFIXES = (
    # the system, Python, Keras, NumPy
    *("LC_", "LD_", "DYLD_", "GLIBC_", "MALLOC_", "PYTHON", "KERAS_", "NPY_", "NUMEXPR_"),
    # TensorFlow, its compiler and its thread counts
    *("TF_", "TFLITE_", "XLA_", "DNNL_", "ONEDNN_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_"),
    # GPUs
    *("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "NVIDIA_", "GPU_", "ROCM_", "ROCR_", "HIP_", "HSA_", "MIOPEN_"),
)
#: Listed names that hold secrets nevertheless, such as NVIDIA_API_KEY, and URLs with a password.
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|PWD|CREDENTIAL|AUTH", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/\s]*@")


def predictor_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Select the variables that the predictor process gets from `variables`, the worker's own."""
    passed_on = {name: value for name, value in variables.items() if _is_listed(name) and not _is_secret(name, value)}
    return passed_on | {"PYTHONUNBUFFERED": "1"}


def _is_listed(name: str) -> bool:
    return name in _NAMES or name.startswith(_PREFIXES)


def _is_secret(name: str, value: str) -> bool:
    return _SECRET_NAME.search(name) is not None or _SECRET_VALUE.search(value) is not None
