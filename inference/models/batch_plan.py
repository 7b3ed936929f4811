"""Which sizes a batch is run in, from what each size was measured to cost.

A batch that no longer fits a cache can take longer than its halves do: MobileNetV2 runs 32 images faster as four times 8, a small
network as one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

_TIMED_ROUNDS = 5
#: A service should be up in seconds.
_TIMING_LIMIT_S = 0.5
#: Of the time of the one padded batch; a smaller gain may be noise.
_CLEAR_GAIN = 0.1

#: By number of images, the sizes to run one after the other. Together they hold the images; the last may have rows left over.
Plans = Mapping[int, tuple[int, ...]]


def measure_costs(
    run: Callable[[int], object], sizes: Sequence[int], clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """Milliseconds of a batch by its size: the least of five rounds over all sizes, or of as many as begin within half a second.

    What else the machine does only adds.

    Args:
        run: runs a batch of a size.
        clock: in seconds.
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


def plan_batches(cost_ms: Mapping[int, float]) -> Plans:
    """The plan of every number of images from 1 to the largest size of `cost_ms`.

    It is the smallest size that holds them all, unless several sizes are cheaper by a tenth.

    Args:
        cost_ms: milliseconds of a batch, by its size.
    """
    cheapest: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    plans: dict[int, tuple[int, ...]] = {}
    for count in range(1, max(cost_ms) + 1):
        cheapest[count] = min(_one_more(cheapest[max(0, count - size)], size, cost_ms[size]) for size in cost_ms)
        whole = min(size for size in cost_ms if size >= count)
        split_ms, split = cheapest[count]
        plans[count] = split if split_ms < cost_ms[whole] * (1 - _CLEAR_GAIN) else (whole,)
    return plans


def _one_more(rest: tuple[float, tuple[int, ...]], size: int, cost_ms: float) -> tuple[float, tuple[int, ...]]:
    rest_ms, sizes = rest
    return rest_ms + cost_ms, tuple(sorted((*sizes, size), reverse=True))
