"""Import rules: between packages, between the layers of inference/, no circles; TensorFlow and kombu in one place each."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TENSORFLOW = {"tensorflow", "keras", "tf_keras"}
#: The package that loads models, in the predictor process, and its part that does so with TensorFlow.
LOADING = Path("inference/models/loading")
TENSORFLOW_LOADING = LOADING / "tensorflow"
#: The one module that publishes to RabbitMQ.
AMQP = {Path("inference/broker/amqp.py"), Path("inference/broker/amqp_queues.py")}

#: Folders and modules of inference/, lowest layer first. A module imports from its own folder and from lower layers only.
LAYERS = (
    {"access", "webhook"},
    {"errors"},
    {"array_metadata", "domain", "ids"},
    {"settings"},
    {"runtime"},
    {"metrics", "tracing"},
    {"keys", "sinks", "storage", "task_store"},
    {"broker", "models"},
    {"imaging", "lifecycle", "rollout"},
    {"container"},
    {"status"},
    {"relay"},
    {"launcher"},
)

#: Libraries that connect to a host by its name, and functions of the standard library that do.
HTTP_CLIENTS = {"requests", "urllib3", "httpx", "httpx2", "aiohttp", "pycurl", "minio", "boto3", "ftplib", "smtplib", "websocket"}
HTTP_CALLS = {"http.client", "urllib.request", "create_connection"}
#: The modules that use them, and what their hosts are: only those of the URL guard come from clients.
CONNECTING = {
    "inference/runtime/url_guard.py": {"http.client"},
    "inference/storage/s3.py": {"minio"},  # the object store of the settings
    "inference/storage/s3_client.py": {"minio", "urllib3"},  # the same, and where its keys come from
    "inference/storage/s3_retention.py": {"minio"},  # the same
    "inference/launcher/all_in_one.py": {"urllib3"},  # this service's own API
    "inference/launcher/probe.py": {"create_connection"},  # a part of this service
}

FORBIDDEN = {
    "api": {"tasks", "celery", "kombu", "celeryconfig"} | TENSORFLOW,
    "tasks": {"api", "flask", "gunicorn"} | TENSORFLOW,
    "inference": {"api", "tasks", "flask", "celery", "kombu", "celeryconfig"} | TENSORFLOW,
}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} has no modules"
    return [path.relative_to(ROOT) for path in found]


def imported(file: Path) -> Iterator[str]:
    """Top-level names of everything that a module imports, wherever in the module it does."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"{file} has a relative import")


def name_of(file: Path) -> str:
    """Dotted name of a module, or of the package that an `__init__.py` makes."""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


#: Modules of the service, and the folder itself where its `__init__.py` is meant, by dotted name.
MODULES = {name_of(file): file for package in FORBIDDEN for file in modules(package)}


def imported_modules(file: Path) -> Iterator[str]:
    """Dotted names of everything that a module imports: `from a import b` gives `a.b` if that is a module, else `a`."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                full_names = (f"{module}.{name.name}" for name in names)
                yield from (full_name if full_name in MODULES else module for full_name in full_names)


#: Every import counts: those inside functions and those for type checking too.
GRAPH = {name: set(imported_modules(file)) for name, file in MODULES.items()}


def reachable(start: str) -> set[str]:
    """All that a module imports, directly or through modules of the service. The packages above a module are not followed."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = GRAPH.get(waiting.pop(), set()) - found
        found |= new
        waiting.extend(new)
    return found


@pytest.mark.parametrize("file", [path for package in FORBIDDEN for path in modules(package)], ids=str)
def test_a_module_imports_only_what_its_package_may(file: Path) -> None:
    allowed = TENSORFLOW if TENSORFLOW_LOADING in file.parents else {"kombu"} if file in AMQP else set()
    assert set(imported(file)) & (FORBIDDEN[file.parts[0]] - allowed) == set()


def test_the_table_of_layers_has_each_folder_once() -> None:
    listed = sorted(name for layer in LAYERS for name in layer)
    assert listed == sorted({name.split(".")[1] for name in MODULES if name.startswith("inference.")})


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("inference.")])
def test_imports_inside_inference_run_to_lower_layers(name: str) -> None:
    level = {folder: level for level, layer in enumerate(LAYERS) for folder in layer}
    folder = name.split(".")[1]
    others = {module for module in GRAPH[name] if module.startswith("inference.") and module.split(".")[1] != folder}
    assert {module for module in others if level[module.split(".")[1]] >= level[folder]} == set()


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    circular = {name for name in MODULES if name.split(".")[0] == package and name in reachable(name)}
    circles = {tuple(sorted(other for other in circular & reachable(name) if name in reachable(other))) for name in circular}
    assert circles == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("tasks.pipeline")])
def test_the_pipeline_knows_nothing_of_celery(name: str) -> None:
    assert {module for module in reachable(name) if module.split(".")[0] in {"celery", "kombu", "celeryconfig"}} == set()
    through = {module for module in reachable(name) if module.startswith("tasks.")}
    assert {module for module in through if not module.startswith("tasks.pipeline.")} == set()


@pytest.mark.parametrize("file", modules("client/src"), ids=str)
def test_the_client_imports_nothing_of_the_service(file: Path) -> None:
    assert set(imported(file)) & {*FORBIDDEN, "pydantic", "numpy", "PIL"} == set()


def test_only_the_url_guard_connects_to_hosts_that_clients_name() -> None:
    found = {str(file): names for package in FORBIDDEN for file in modules(package) if (names := connecting_names(file))}
    assert found == CONNECTING


def connecting_names(file: Path) -> set[str]:
    """Libraries and functions that a module uses to connect to hosts."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    used = set(imported_modules(file)) | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    return {name for name in used if name in HTTP_CALLS} | (set(imported(file)) & HTTP_CLIENTS)


def test_the_one_package_that_imports_tensorflow_is_where_it_is_said_to_be() -> None:
    assert any(set(imported(file)) & TENSORFLOW for file in modules(str(TENSORFLOW_LOADING)))


def test_only_two_processes_import_that_package() -> None:
    importers = [
        file
        for package in FORBIDDEN
        for file in modules(package)
        if "inference.models.loading" in (ROOT / file).read_text(encoding="utf-8") and LOADING not in file.parents
    ]
    # the inspection of a file, in a process that ends, and the predictor process
    inspecting = [Path("inference/models/inspection/onnx.py"), Path("inference/models/inspection/saved_model.py")]
    assert importers == [*inspecting, Path("inference/models/predictor/process.py")]


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("api", TENSORFLOW | {"tasks", "celery", "inference.metrics.worker", "inference.metrics.relay"}),
        ("tasks", TENSORFLOW | {"api", "flask", "inference.metrics.api", "inference.metrics.relay"}),
        ("inference.relay.process", TENSORFLOW | {"tasks", "celery", "api", "flask", "inference.metrics.worker"}),
        ("server", {"api", "prometheus_client"}),
        ("inference.models.predictor.client", TENSORFLOW),
        ("inference.models.predictor.process", TENSORFLOW),
        ("inference.models.loading", TENSORFLOW),
        ("inference.models.loading.litert", TENSORFLOW),
        ("inference.domain", {"PIL", "pydantic", "redis"}),
        ("inference.settings", {"PIL", "inference.imaging", "inference.models"}),
        ("celeryconfig", TENSORFLOW | {"api", "flask"}),
    ],
)
def test_importing_a_part_loads_no_more_than_it_needs(module: str, never: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({never!r} & set(sys.modules)))"
    environment = os.environ | {"INFERENCE_CONFIG": "configurations/local.yaml"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
