"""Routes of the API's description: /openapi.json, and /docs with Swagger UI. Nothing is loaded from another server.

The page and its files name each other by relative URLs, so they work behind a proxy with any path.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from flask import Blueprint, Response

from api.forms.query import check_query
from api.openapi.document import openapi_document
from api.security.headers import CONTENT_POLICY
from inference.errors import NotFound

blueprint = Blueprint("documentation", __name__)

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Image inference: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<body>
<div id="swagger-ui"><noscript>The API is described in <a href="openapi.json">openapi.json</a>.</noscript></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
#: `validatorUrl: null`: Swagger UI would otherwise send the description's address to a server of its makers.
_SCRIPT = """\
// Fields of a form begin empty, not with made-up values such as "string", which would be sent. Only they have no media type.
function leaveFormsEmpty({ fn }) {
  const sample = fn.getSampleSchema;
  this.fn.getSampleSchema = (schema, mediaType, ...rest) => {
    if (mediaType !== false) return sample(schema, mediaType, ...rest);
    const kind = fn.getSchemaObjectType(schema);
    return kind === "array" ? sample(schema, mediaType, ...rest) : kind === "object" ? "{}" : "";
  };
}
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [() => ({ afterLoad: leaveFormsEmpty })],
});
"""
#: Everything comes from this service, and nothing runs that is written in the page itself.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SCRIPT_TYPE = "text/javascript"
#: Media type and place in the wheel, by name.
_FILES = {
    "swagger-ui.css": ("text/css", "css/swagger-ui.css"),
    "swagger-ui-bundle.js": (_SCRIPT_TYPE, "js/swagger-ui-bundle.js"),
}


@blueprint.get("/openapi.json")
def get_openapi() -> Response:
    """Return the OpenAPI document."""
    check_query()
    return Response(openapi_document(), mimetype="application/json")


@blueprint.get("/docs")
def show_docs() -> Response:
    """Return the page for browsers."""
    check_query()
    return Response(_PAGE, headers={CONTENT_POLICY: _POLICY}, mimetype="text/html")


@blueprint.get("/docs/<name>")
def get_docs_file(name: str) -> Response:
    """Return a file of the page. Raises NotFound."""
    check_query()
    if name == "page.js":
        return Response(_SCRIPT, mimetype=_SCRIPT_TYPE)
    if name not in _FILES:
        raise NotFound("there is nothing at this path")
    media_type, place = _FILES[name]
    return Response(_swagger_file(place), mimetype=media_type)


@cache
def _swagger_file(place: str) -> bytes:
    """Read a file of Swagger UI, without an import of the package, which would load a framework."""
    wheel = distribution("flask-openapi-swagger")
    return Path(str(wheel.locate_file(f"flask_openapi_swagger/templates/swagger/{place}"))).read_bytes()
