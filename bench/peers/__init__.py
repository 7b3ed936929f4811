"""Servers of the peers, one file each, as their own documentation recommends. They run in environments of their own.

Each answers `{"response": {"class", "confidence_level", "prediction"}}` with the whole prediction vector, runs images in batches,
and keeps to this machine: 127.0.0.1, no telemetry.
"""

MAX_BATCH_SIZE = 32
#: How long the first image of a batch waits for others.
BATCH_WAIT_S = 0.005
#: Of one request; longer than the load generator waits at the worst.
TIMEOUT_S = 60
