"""The real Redis, MinIO, Kafka, MongoDB-protocol server and RabbitMQ, for trying and testing the service against them.

`python -m dev.servers start`, `stop` and `status`; `make services`, `services-stop` and `services-status` call them. Where a
docker engine is there, docker-compose.yml is used; elsewhere the servers are plain processes of this machine, with all they have
under `build/services`. Only the standard library: it runs before anything is installed.
"""
