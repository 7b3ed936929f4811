"""Kinds of servers, named as in docker-compose.yml, which has no VersityGW."""

from __future__ import annotations

from dev.servers.servers import ferretdb, kafka, minio, rabbitmq, redis, versitygw

KINDS = (redis.KIND, minio.KIND, versitygw.KIND, kafka.KIND, ferretdb.KIND, rabbitmq.KIND)
