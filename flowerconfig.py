"""Flower's settings, which `celery -A tasks flower` reads: with a password, on loopback only, with state kept in a file.

`FLOWER_…` variables and the command line take precedence.
"""

import os
import sys

from tornado.options import options

from celeryconfig import settings
from inference.errors import ConfigurationError
from inference.launcher.server_checks import check_servers
from inference.launcher.start_checks import check_start
from inference.settings.http_address import bound_socket
from inference.settings.secret_files import value_or_content
from tasks.flower.access import login_problem

# The variables and the command line have been read into `options` already.
try:
    if os.environ.get("FLOWER_BASIC_AUTH_FILE"):
        basic_auth = options.basic_auth = (value_or_content(os.environ, "FLOWER_BASIC_AUTH") or "").split(",")
except ConfigurationError as error:
    sys.exit(f"error: {error.detail}")
if not options.auth and (_problem := login_problem(options.basic_auth or ())):
    sys.exit(f"FLOWER_BASIC_AUTH=NAME:PASSWORD, or a file that FLOWER_BASIC_AUTH_FILE names, {_problem}")
if any(argument.lstrip("-").replace("-", "_").startswith("basic_auth") for argument in sys.argv):
    sys.stderr.write(
        "warning: all users of this host can read a command line; put the password into FLOWER_BASIC_AUTH or its file\n"
    )


def _check_address(host: str, port: int) -> None:
    """Check the address that the variables or the command line set. Raises ConfigurationError."""
    if not 0 <= port < 2**16:
        raise ConfigurationError(f"FLOWER_PORT: {port} is not a port: use 0 to 65535")
    bound_socket(host, port, key="FLOWER_ADDRESS").close()


try:
    check_start(settings, "flower")
    if not options.unix_socket:
        _check_address(options.address or "127.0.0.1", options.port)
    check_servers(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
except (ConfigurationError, OSError) as error:
    sys.stderr.write(f"error: {getattr(error, 'detail', error)}\n")
    sys.exit(2)

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
persistent = True
db = os.environ.get("FLOWER_DB", str(settings.data_dir / "flower"))
#: milliseconds
state_save_interval = 60_000
#: seconds: each start of a worker has a name of its own, and ended ones would fill the list
purge_offline_workers = 3600
