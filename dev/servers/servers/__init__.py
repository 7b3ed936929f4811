"""Kinds of servers, named as in docker-compose.yml."""

from __future__ import annotations

from dev.servers.servers import ferretdb, kafka, minio, rabbitmq, redis

KINDS = (redis.KIND, minio.KIND, kafka.KIND, ferretdb.KIND, rabbitmq.KIND)
