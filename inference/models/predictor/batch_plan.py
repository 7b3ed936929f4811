"""Which sizes a batch is run in, from what each size was measured to cost.

A batch that no longer fits a cache can take longer than its halves do: MobileNetV2 runs 32 images faster as four times 8, a small
network as one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

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

    It is the smallest size that holds them all, unless chunks of the best size for this number are cheaper by a tenth.

    Args:
        cost_ms: milliseconds of a batch, by its size.
    """

    def total_ms(plan: tuple[int, ...]) -> float:
        return sum(cost_ms[size] for size in plan)

    plans = {}
    for count in range(1, max(cost_ms) + 1):
        whole = _chunks(count, max(cost_ms), cost_ms)
        best = min((_chunks(count, size, cost_ms) for size in cost_ms), key=total_ms)
        plans[count] = best if total_ms(best) < total_ms(whole) * (1 - _CLEAR_GAIN) else whole
    return plans


def _chunks(count: int, size: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """As many chunks of `size` as are full, and the smallest one that holds the rest."""
    full, rest = divmod(count, size)
    return (size,) * full + ((min(each for each in sizes if each >= rest),) if rest else ())
