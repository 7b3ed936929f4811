"""Servers of the peers, one file each, as their own documentation recommends. They run in separate environments.

Each answers `{"response": {"class", "confidence_level", "prediction"}}` with the whole prediction vector, runs images in batches,
and uses no other host: it listens at 127.0.0.1, without telemetry.
"""

MAX_BATCH_SIZE = 32
#: Time that the first image of a batch waits for others.
BATCH_WAIT_S = 0.005
#: Timeout of one request; longer than the load generator ever waits.
TIMEOUT_S = 60
