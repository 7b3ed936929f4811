"""Inspection of one model file in a process of its own: `python -m inference.models.inspection.process PATH MAX_BYTES`.

The process writes a line of JSON: the facts, or the text of an error. A file that ends it, takes too long or needs too much
memory hurts nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

from pydantic import TypeAdapter

from inference.errors import ConfigurationError
from inference.models.archives import ModelFileLimits
from inference.models.inspection.facts import ModelFacts
from inference.models.inspection.suffixes import check_suffix
from inference.models.predictor.environment import predictor_environment

_MODULE = "inference.models.inspection.process"
_FACTS = TypeAdapter(ModelFacts)
#: Exit code for an error that the last line of the output describes.
_REFUSED = 3
_TIMEOUT_S = 300.0
#: Limit of the process's data: the libraries, and copies of the file in memory. TensorFlow takes 0.6 GiB of it.
_MEMORY_BYTES, _COPIES = 2 * 2**30, 3
#: Extra of the distribution that installs a package.
_EXTRAS = {"tensorflow": "tensorflow", "h5py": "tensorflow", "ai_edge_litert": "litert", "onnxruntime": "onnx"}


def inspect_file(path: Path, limits: ModelFileLimits) -> ModelFacts:
    """Start the process for a file or a SavedModel's folder, and return its findings.

    Raises:
        ConfigurationError: it is no model of a known format, is refused, or cannot be read; the message begins with a verb.
    """
    check_suffix(path)
    command = [sys.executable, "-m", _MODULE, str(path.absolute()), str(limits.max_bytes)]
    try:
        done = subprocess.run(  # noqa: S603 our own module
            command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=predictor_environment(os.environ)
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"took more than {_TIMEOUT_S:g} s to read") from None
    if done.returncode == 0:
        return _FACTS.validate_json(_last_line(done.stdout))
    if done.returncode == _REFUSED:
        raise ConfigurationError(json.loads(_last_line(done.stdout)))
    raise ConfigurationError(f"ended the process that read it (exit code {done.returncode}): {_last_line(done.stderr)}")


def read_facts(path: Path, limits: ModelFileLimits) -> ModelFacts:
    """Read a file in this process. Raises ConfigurationError."""
    try:
        return _read(path, limits)
    except ConfigurationError:
        raise
    except MemoryError as error:
        raise ConfigurationError("needs far more memory to be read than its size says") from error
    except ImportError as error:
        raise ConfigurationError(f"needs {error.name}, which is not installed{_install(error.name)}") from error
    except struct.error as error:  # of LiteRT's reader, beyond the end
        raise ConfigurationError("is damaged, or its end is missing") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"cannot be read: {_first_line(error)}") from error
    except Exception as error:  # a library's error for a damaged file may be of any type
        raise ConfigurationError(f"is not a model, or is damaged: {_first_line(error)}") from error


def _read(path: Path, limits: ModelFileLimits) -> ModelFacts:
    suffix = check_suffix(path)
    if suffix == ".keras":
        from inference.models.inspection.keras_configuration import read_keras  # noqa: PLC0415 each imports its library

        return read_keras(path, limits)
    if suffix in {".h5", ".hdf5"}:
        from inference.models.inspection.keras_configuration import read_h5  # noqa: PLC0415 as above

        return read_h5(path, limits)
    if suffix == ".tflite":
        from inference.models.inspection.litert import read_litert  # noqa: PLC0415 as above

        return read_litert(path, limits)
    if suffix == ".onnx":
        from inference.models.inspection.onnx import read_onnx  # noqa: PLC0415 as above

        return read_onnx(path, limits)
    from inference.models.inspection.saved_model import read_saved_model  # noqa: PLC0415 as above

    return read_saved_model(path)


def _install(package: str | None) -> str:
    extra = _EXTRAS.get((package or "").partition(".")[0])
    return f': pip install "rohe-inference-service[{extra}]"' if extra else ""


def _last_line(output: bytes) -> str:
    """Return the last line: libraries may have written others before it. Labels may have Unicode's line separators."""
    return output.strip().rpartition(b"\n")[2].decode(errors="replace")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _limit_memory(path: Path) -> None:
    """Limit this process's data, so that a hostile file cannot take all memory of the host."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    limit = _MEMORY_BYTES + _COPIES * sum(file.stat().st_size for file in files)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _main() -> int:
    path, max_bytes = sys.argv[1:]
    _limit_memory(Path(path))
    try:
        facts = read_facts(Path(path), ModelFileLimits(int(max_bytes)))
    except ConfigurationError as error:
        sys.stdout.write(f"\n{json.dumps(error.detail)}\n")
        return _REFUSED
    sys.stdout.write(f"\n{_FACTS.dump_json(facts).decode()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
