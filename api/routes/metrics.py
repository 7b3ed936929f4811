"""GET /metrics: the metrics of the API and of the whole service, for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response

from api.components import components
from api.forms.query import check_query
from inference.metrics.exposition import CONTENT_TYPE, exposition

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def get_metrics() -> Response:
    """Return all metrics as text."""
    check_query()
    return Response(exposition(components().service_metrics), content_type=CONTENT_TYPE)
