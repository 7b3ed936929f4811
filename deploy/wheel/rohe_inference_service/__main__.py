"""Command `rohe-inference-service`: `server.py` of the application in the folder `app`, with all its subcommands."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

_APPLICATION = Path(__file__).resolve().parent / "app"


def main() -> None:
    """Run `server.py` as a script.

    The application comes first on the module search path, of child processes too, and the working directory is not on theirs: the
    user's own `tasks.py` or `keras.py` must not be imported in place of the service's.
    """
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_APPLICATION), others)))
    os.environ["PYTHONSAFEPATH"] = "1"
    sys.path.insert(0, str(_APPLICATION))
    runpy.run_path(str(_APPLICATION / "server.py"), run_name="__main__")


if __name__ == "__main__":
    main()
