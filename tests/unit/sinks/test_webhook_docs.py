"""The example of docs/http.md verifies what the relay signs, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Signer
from standardwebhooks.webhooks import WebhookVerificationError

from inference.sinks.webhook import _headers

SECRET = "whsec_c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3Jl"
BODY = b'{"type": "task.failed", "data": {"task_id": "17"}}'


def test_the_example_of_a_receiver_verifies_an_event(repository: Path) -> None:
    section = (repository / "docs/http.md").read_text(encoding="utf-8").partition("## Webhooks")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example.replace("whsec_…", SECRET), names)  # noqa: S102 an example of ours

    headers = dict(_headers([Signer(SECRET)], "msg_17", BODY))
    assert names["receive"](BODY, headers) == "17: task.failed"
    with pytest.raises(WebhookVerificationError):
        names["receive"](BODY.replace(b"17", b"18"), headers)
