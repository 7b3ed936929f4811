"""Keep Celery's own variables from going before the settings: a worker on another broker would never see a task."""

from __future__ import annotations

import os
import sys

import click
from click.core import ParameterSource

#: Celery takes them before its configuration, and `celery` sets some of them.
_VARIABLES = (
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_CONFIG_MODULE",
    "CELERY_LOADER",
)
_OPTIONS = {"broker": "--broker (broker.url says it)", "result_backend": "--result-backend", "loader": "--loader"}


def drop_celery_variables() -> None:
    """Remove them from the environment, also those that `celery` made of BROKER_URL, RESULT_BACKEND, CONFIG_MODULE and LOADER."""
    for name in _VARIABLES:
        os.environ.pop(name, None)


def is_celery_command() -> bool:
    """Whether this process is one of `celery`'s commands, and not a program that imports the application."""
    return click.get_current_context(silent=True) is not None


def check_celery_options() -> None:
    """End this process, if `celery` was typed with an option that says what the configuration says."""
    context = click.get_current_context(silent=True)
    for name, text in _OPTIONS.items():
        if context is not None and context.find_root().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            sys.stderr.write(f"error: {text} cannot be given here: the configuration is read from INFERENCE_CONFIG\n")
            sys.exit(2)
