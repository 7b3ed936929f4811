"""Command line of the service.

python server.py --config FILE --port 30005     everything on this machine
python server.py serve MODEL.keras              the same with this model, described by looking at its file
python server.py models check | init MODEL      try a model without the service; write its model.yaml
python server.py api | relay | broker           one part (the worker: celery -A tasks worker)
python server.py check-config FILE              show every error by its key, and the effective settings
python server.py status [--json]                show the state; exit code 1 if something needs attention
python server.py keys create | list | rotate ID | revoke ID
python server.py reset-models                   undo the changes of commands: back to the configuration
python server.py dead-letters list | inspect ID | replay ID | discard ID
python server.py backup FOLDER                  copy the data folder, while the service runs
python server.py erase TASK_ID... | --request-id ID    remove everything of tasks
python server.py probe worker | relay | api [--ready]  exit code 0 if it is healthy, for health checks
python server.py celery ...                     a command of Celery: worker, flower, inspect
"""

from __future__ import annotations

import sys

# A probe runs every few seconds: it ends before anything that takes long is imported.
if __name__ == "__main__" and sys.argv[1:2] == ["probe"]:
    from inference.launcher import probe

    sys.exit(probe.main(sys.argv[2:]))

# The API runs in greenlets: patch the standard library before anything else is imported.
if __name__ == "__main__" and next((word for word in sys.argv if word in {"api", "keys", "serve"}), "") == "api":
    from gevent import monkey

    monkey.patch_all()

import argparse
import json
import os
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from inference import __version__
from inference.errors import ConfigurationError, InferenceError
from inference.launcher.backup_command import add_backup_command, back_up
from inference.launcher.erase_command import add_erase_command, erase_tasks
from inference.launcher.key_commands import add_key_commands, run_key_command
from inference.launcher.model_commands import add_commands, join_scale, prepare_serving
from inference.launcher.probe import add_arguments, run_probe
from inference.launcher.server_checks import check_servers
from inference.launcher.start_checks import Part, check_everything, check_open_files, check_start
from inference.metrics.shared_values import share_metrics
from inference.runtime.audit import audited_command, command_audit, open_audit_file
from inference.runtime.cpu import use_batch_scheduling
from inference.runtime.log import configure_logging
from inference.runtime.private_files import write_privately
from inference.settings import (
    CONFIG_VARIABLE,
    Settings,
    config_path,
    load_settings,
    masked_settings,
    read_translated,
    shown_value,
)
from inference.settings.installation import COMMAND


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(join_scale(sys.argv[1:] if arguments is None else arguments))
    try:
        return int(options.run(options))
    except KeyboardInterrupt:  # while files are read; later, the signal stops the service in order
        return 130
    except ConfigurationError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 2
    except InferenceError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config",
        "--conf",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help=f"YAML or JSON; default: ${CONFIG_VARIABLE}, else configurations/local.yaml",
    )
    address = argparse.ArgumentParser(add_help=False)
    address.add_argument("--host", default=argparse.SUPPRESS, help="address or name to listen on; default 127.0.0.1")
    address.add_argument("--port", default=argparse.SUPPRESS, help="port to listen on; default 30005")

    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Image inference service: without a command, everything on this machine.",
        epilog=f"The worker alone: {COMMAND} celery worker",
        parents=[shared, address],
    )
    parser.add_argument("--version", action="version", version=f"rohe-inference-service {__version__}")
    parser.set_defaults(run=_run_everything)
    commands = parser.add_subparsers(metavar="COMMAND")

    _add_services(commands, shared, address)
    _add_maintenance(commands, shared)
    return parser


def _add_services(commands: Any, shared: argparse.ArgumentParser, address: argparse.ArgumentParser) -> None:
    """Add the commands that serve models, and the commands that run one part of the service."""
    serve, models = add_commands(commands, shared, address)
    serve.set_defaults(run=_serve)
    models.set_defaults(run=_models)
    api = commands.add_parser("api", parents=[shared, address], help="the HTTP API alone")
    api.set_defaults(run=_run_api)
    relay = commands.add_parser("relay", parents=[shared], help="the relay and the sweeper alone")
    relay.set_defaults(run=_run_relay)
    broker = commands.add_parser("broker", parents=[shared], help="the embedded broker alone")
    broker.set_defaults(run=_run_broker)
    # No argument begins with this prefix, so that options are arguments too, which Celery reads.
    celery = commands.add_parser("celery", help="a command of Celery: worker, flower, inspect", add_help=False, prefix_chars="\0")
    celery.add_argument("arguments", nargs=argparse.REMAINDER)
    celery.set_defaults(run=_run_celery)


def _add_maintenance(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the commands that show, check or change stored data."""
    check = commands.add_parser("check-config", parents=[shared], help="check a configuration and show the effective settings")
    check.add_argument("file", type=Path, nargs="?", help="the configuration")
    check.set_defaults(run=_check_config)
    probing = commands.add_parser("probe", parents=[shared], help="ask whether a part is live or ready; for health checks")
    add_arguments(probing)
    probing.set_defaults(run=run_probe)
    status = commands.add_parser("status", parents=[shared], help="show stores, queues, workers, outboxes, and problems")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_status)
    keys = add_key_commands(commands, shared)
    keys.set_defaults(run=_keys)
    reset = commands.add_parser("reset-models", parents=[shared], help="undo the changes of commands: back to the configuration")
    reset.set_defaults(run=_reset_models)
    add_backup_command(commands, shared).set_defaults(run=_back_up)
    add_erase_command(commands, shared).set_defaults(run=_erase)
    dead = commands.add_parser(
        "dead-letters",
        parents=[shared],
        help="tasks whose attempts crashed, results that a sink refused, messages that no worker can read",
    )
    dead.add_argument("action", choices=["list", "inspect", "replay", "discard"], nargs="?", default="list")
    dead.add_argument("task_ids", nargs="*", metavar="ID")
    dead.add_argument("--limit", type=_positive, default=1000, metavar="N", help="list the oldest N; default 1000")
    dead.set_defaults(run=_dead_letters)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _settings(options: argparse.Namespace) -> Settings:
    named = {name: getattr(options, name) for name in ("host", "port") if hasattr(options, name)}
    overrides: dict[str, Any] = {"api": named} if named else {}
    return load_settings(_config(options), overrides)


def _config(options: argparse.Namespace) -> Path | None:
    return config_path(getattr(options, "config", None))


def _run_everything(options: argparse.Namespace) -> int:
    from inference.launcher import all_in_one

    settings = _settings(options)
    configure_logging(settings.log, "server")
    _warn_about_unused(_config(options))
    return all_in_one.run(settings, _config(options))


def _serve(options: argparse.Namespace) -> int:
    prepare_serving(options, _settings(options))
    return _run_everything(options)


def _models(options: argparse.Namespace) -> int:
    return int(options.model_action(options, _settings(options)))


def _keys(options: argparse.Namespace) -> int:
    return run_key_command(options, _settings(options))


def _run_api(options: argparse.Namespace) -> int:
    settings = _ready_to_start(options, "api")
    share_metrics()  # before the import of the instruments
    from api.server import gunicorn_server

    gunicorn_server.serve(settings)
    return 0


def _ready_to_start(options: argparse.Namespace, part: Part) -> Settings:
    """Set up logging, check settings and servers, and return the settings of a part that runs alone."""
    settings = _settings(options)
    configure_logging(settings.log, part)
    check_start(settings, part)
    open_audit_file(settings.security.audit_file)
    check_open_files()
    check_servers(settings)
    return settings


def _run_relay(options: argparse.Namespace) -> int:
    from inference.relay import process as relay_process

    relay_process.serve(_ready_to_start(options, "relay"))
    return 0


def _run_celery(options: argparse.Namespace) -> int:
    """Run Celery with this service's application, from any working directory."""
    from celery.__main__ import main as celery_main
    from celery.exceptions import SecurityWarning

    # Celery warns of pickle under root; this service's messages are JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    if (config := _config(options)) is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    # Celery puts the working directory first on the module search path, unless it is there: a `tasks.py` in it is the user's own.
    sys.path.append(str(Path.cwd()))
    sys.argv = ["celery", "-A", "tasks", *options.arguments]
    celery_main()
    return 0


def _run_broker(options: argparse.Namespace) -> int:
    from inference.launcher import embedded_broker

    settings = _settings(options)
    check_start(settings, "broker")
    command = embedded_broker.command(settings.data_dir, settings.broker.embedded_memory_mb)
    os.execv(command[0], command)  # noqa: S606 signals must reach the broker itself


def _check_config(options: argparse.Namespace) -> int:
    _show_translation(options.file or _config(options))
    settings = load_settings(options.file or _config(options))
    models = check_everything(settings)
    print(yaml.safe_dump(masked_settings(settings), sort_keys=False), end="")
    for model in models:
        served = ", served" if model.name == models.default_name else ""
        files = ", ".join(file.location for file in model.local_files.values())
        files += f" with the code {model.code}" if model.code else ""
        print(f"# model {model.name} {model.version} ({files}; {model.digest}; queue {model.queue}{served})", file=sys.stderr)
    return 0


def _status(options: argparse.Namespace) -> int:
    import orjson

    from inference.container import Services
    from inference.status.collect import status_of
    from inference.status.render import status_table

    status = status_of(Services(_settings(options)))
    if options.json:
        print(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode())
    else:
        print(status_table(status), end="")
    return 1 if status.problems else 0


def _show_translation(file: Path | None) -> None:
    for one in read_translated(file).translated if file else ():
        print(f"# {one.key} → {one.setting}: {shown_value(one.value)}")
    _warn_about_unused(file)


def _warn_about_unused(file: Path | None) -> None:
    for key in read_translated(file).unused if file else ():
        print(f"warning: {key} is not used here", file=sys.stderr)


def _reset_models(options: argparse.Namespace) -> int:
    from inference.container import Services
    from inference.models.registry import default_name

    services = Services(_settings(options))
    served = default_name(services.settings, services.descriptions)
    with command_audit(services.settings.security.audit_file), audited_command("models.reset", served):
        services.desired.reset()
    print(f"models, ensemble mode and served model ({served}) are those of the configuration again")
    return 0


def _back_up(options: argparse.Namespace) -> int:
    back_up(_settings(options), options.folder)
    print(f"the backup is in {options.folder}")
    return 0


def _erase(options: argparse.Namespace) -> int:
    return erase_tasks(options, _settings(options))


def _dead_letters(options: argparse.Namespace) -> int:
    from inference.broker.rejected import is_rejected_id
    from inference.container import Services
    from inference.lifecycle.dead_letters import DeadLetters

    services = Services(_settings(options))
    dead_letters = DeadLetters(services.store, services.objects, services.broker)
    if options.action == "list":
        for record in dead_letters.list(options.limit):
            reason = "; ".join(f"{sink}: {text}" for sink, text in record.refusals.items()) or f"{record.attempts} attempts"
            print(f"{record.task_id}  {record.model.name}  request {record.request_id}  {reason}")
        for message in services.rejected.list(options.limit):
            print(f"{message.message_id}  {message.queue}  {message.reason}")
        if (count := services.store.count_dead_letters()) > options.limit:
            print(f"the oldest {options.limit} of {count} dead letters; --limit N lists more", file=sys.stderr)
        return 0
    if not options.task_ids:
        raise ConfigurationError(f"dead-letters {options.action}: give at least one ID; {COMMAND} dead-letters list shows them")
    with command_audit(services.settings.security.audit_file):
        for one in options.task_ids:
            act = _on_rejected_message if is_rejected_id(one) else _on_dead_task
            with nullcontext() if options.action == "inspect" else audited_command(f"dead_letter.{options.action}", one):
                act(services, options.action, one)
    return 0


def _on_dead_task(services: Any, action: str, task_id: str) -> None:
    from inference.lifecycle.dead_letters import DeadLetters
    from inference.rollout.runtime_config import chosen_sinks

    dead_letters = DeadLetters(services.store, services.objects, services.broker)
    match action:
        case "inspect":
            _print_json(dead_letters.inspect(task_id))
        case "replay":
            settings = services.settings
            sinks = chosen_sinks(settings, services.desired.read())
            new_id = dead_letters.replay(task_id, deadline_s=settings.deadlines.async_s, sinks=sinks)
            print(f"{task_id} is delivered again" if new_id == task_id else f"{task_id} runs again as {new_id}")
        case _:
            dead_letters.discard(task_id)
            print(f"{task_id} is discarded")


def _on_rejected_message(services: Any, action: str, message_id: str) -> None:
    match action:
        case "inspect":
            print(json.dumps(asdict(services.rejected.get(message_id)), indent=2))  # orjson refuses large numbers
        case "replay":
            queue = services.rejected.replay(message_id, services.broker)
            print(f"{message_id} is in {queue} again")
        case _:
            services.rejected.discard(message_id)
            print(f"{message_id} is discarded")


def _print_json(document: Any) -> None:
    import orjson

    print(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())


if __name__ == "__main__":
    write_privately()
    use_batch_scheduling()
    sys.exit(main())
