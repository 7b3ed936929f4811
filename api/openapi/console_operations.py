"""Operations of the console, which browsers use."""

from __future__ import annotations

from api.openapi.operation import OF_PATHS, Answer, Operation
from api.openapi.parts import path_text, query
from api.security.needed_role import NeededRole

_PAGE = Answer(200, "The page.", media_type="text/html")
_NO_PAGE = Answer(404, "To browsers a page that says that nothing is here.", media_type="text/html")
_FILTERS = tuple(
    query(name, "as of `GET /tasks`; the page's script reads it", type="string")
    for name in ("status", "model", "request_id", "owner", "since", "cursor")
)

CONSOLE_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "redirect_to_console",
        "get",
        "/ui",
        "console",
        "Go to the console",
        role=NeededRole.NONE,
        answers=(Answer(303, "It is at `/ui/`.", media_type="text/html", headers=("Location",)),),
    ),
    Operation(
        "show_console",
        "get",
        "/ui/",
        "console",
        "Classify images in a browser",
        role=NeededRole.NONE,
        parameters=(query("model", "the model that is chosen at first", type="string"),),
        answers=(_PAGE,),
    ),
    Operation(
        "show_console_page",
        "get",
        "/ui/{page}",
        "console",
        "Look at tasks, dead letters, queues or models in a browser",
        role=NeededRole.NONE,
        parameters=(path_text("page", enum=["tasks", "dead-letters", "queue", "models"]), *_FILTERS),
        answers=(_PAGE, _NO_PAGE),
        own_problems=OF_PATHS,
    ),
    Operation(
        "show_console_subject",
        "get",
        "/ui/{page}/{subject}",
        "console",
        "Look at a task or a batch in a browser",
        role=NeededRole.NONE,
        parameters=(path_text("page", enum=["tasks", "batches"]), path_text("subject", minLength=1)),
        answers=(_PAGE, _NO_PAGE),
        own_problems=OF_PATHS,
    ),
    Operation(
        "get_console_file",
        "get",
        "/ui/static/{digest}/{name}",
        "console",
        "Get a file of the console",
        role=NeededRole.NONE,
        parameters=(path_text("digest", pattern="^[0-9a-f]{16}$"), path_text("name", minLength=1)),
        answers=(Answer(200, "The file.", media_type="*/*", headers=("Content-Encoding",)),),
        own_problems=OF_PATHS,
    ),
)
