"""Check of Celery's own variables and options, which would override the settings: a worker on another broker gets no tasks."""

from __future__ import annotations

import os
import sys

import click
from click.core import ParameterSource

#: In Celery they take precedence over its configuration, and `celery` sets some of them.
_VARIABLES = (
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_BROKER_URL",
    "CELERY_RESULT_BACKEND",
    "CELERY_CONFIG_MODULE",
    "CELERY_LOADER",
)
_OPTIONS = {"broker": "--broker (set broker.url instead)", "result_backend": "--result-backend", "loader": "--loader"}


def drop_celery_variables() -> None:
    """Remove Celery's variables from the environment.

    They include the ones that `celery` sets from BROKER_URL, RESULT_BACKEND, CONFIG_MODULE and LOADER.
    """
    for name in _VARIABLES:
        os.environ.pop(name, None)


def is_celery_command() -> bool:
    """Return whether this process is a `celery` command, not another program that imports the application."""
    return click.get_current_context(silent=True) is not None


def check_celery_options() -> None:
    """End this process if the `celery` command line has an option that the configuration already sets."""
    context = click.get_current_context(silent=True)
    for name, text in _OPTIONS.items():
        if context is not None and context.find_root().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            sys.stderr.write(f"error: {text} cannot be used here: the configuration is read from INFERENCE_CONFIG\n")
            sys.exit(2)
