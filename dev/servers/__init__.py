"""Real Redis, MinIO, VersityGW, Kafka, MongoDB-protocol server and RabbitMQ, to try and test the service with them.

`python -m dev.servers start`, `stop` and `status`; `make services`, `services-stop` and `services-status` call them. If
there is a docker engine, docker-compose.yml is used; otherwise the servers are plain processes of this machine, with all files
in `build/services`. The package uses only the standard library, because it runs before anything is installed.
"""
