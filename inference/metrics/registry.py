"""Registry of a process's instruments, and the buckets of their histograms."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, disable_created_metrics

# Otherwise each counter and histogram has a second time series.
disable_created_metrics()

#: Instruments that this process has imported.
INSTRUMENTS = CollectorRegistry()

#: Upper bounds of durations, seconds: from an image of a tiny model to the longest deadlines that are usual.
DURATION_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
#: Upper bounds of batch sizes, images.
BATCH_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
