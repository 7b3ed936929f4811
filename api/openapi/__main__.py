"""Print the OpenAPI document as docs/openapi.json has it: `python -m api.openapi`."""

from __future__ import annotations

import json
import sys

from api.openapi.document import openapi_document

if __name__ == "__main__":
    json.dump(json.loads(openapi_document()), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
