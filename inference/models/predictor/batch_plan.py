"""Split of a batch into chunks, based on the measured cost of each chunk size.

A batch that exceeds a CPU cache can take longer than its halves: MobileNetV2 runs 32 images faster as four times 8, a small
network as one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

_TIMED_ROUNDS = 5
#: Limit of the measurement, because a service should start within seconds.
_TIMING_LIMIT_S = 0.5
#: Minimum gain relative to the time of one padded batch; a smaller one may be noise.
_CLEAR_GAIN = 0.1

#: Chunk sizes to run one after another, by number of images; the last chunk may be larger than the rest of the images.
Plans = Mapping[int, tuple[int, ...]]


def run_once(run: Callable[[int], object], sizes: Sequence[int]) -> None:
    """Run a batch of each size, since the first one of a size is slower than later ones."""
    for size in sizes:
        run(size)


def measure_costs(
    run: Callable[[int], object], sizes: Sequence[int], clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Measure the milliseconds of a batch by size: the minimum of five rounds, or of the rounds that begin within half a second.

    The minimum is used because other load on the machine can only add time.

    Args:
        run: runs a batch of a size.
        clock: returns seconds.
    """
    least_ms = dict.fromkeys(sizes, math.inf)
    end = clock() + _TIMING_LIMIT_S
    for _ in range(_TIMED_ROUNDS):
        for size in sizes:
            began = clock()
            run(size)
            least_ms[size] = min(least_ms[size], (clock() - began) * 1000)
        if clock() >= end:
            break
    return least_ms


def plan_batches(cost_ms: Mapping[int, float], max_batch_size: int) -> Plans:
    """Plan every number of images from 1 to `max_batch_size`.

    The plan is the smallest size that holds all images, or full chunks of the largest size and one that holds the rest, unless
    chunks of the best size for this number are cheaper by a tenth.

    Args:
        cost_ms: milliseconds of a batch, by size.
    """

    def total_ms(plan: tuple[int, ...]) -> float:
        return sum(cost_ms[size] for size in plan)

    plans = {}
    for count in range(1, max_batch_size + 1):
        whole = _chunks(count, max(cost_ms), cost_ms)
        best = min((_chunks(count, size, cost_ms) for size in cost_ms), key=total_ms)
        plans[count] = best if total_ms(best) < total_ms(whole) * (1 - _CLEAR_GAIN) else whole
    return plans


def _chunks(count: int, size: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """Return all full chunks of `size`, and the smallest chunk that holds the rest."""
    full, rest = divmod(count, size)
    return (size,) * full + ((min(each for each in sizes if each >= rest),) if rest else ())
