"""KEDA's rule and the HorizontalPodAutoscaler's, as they decide how many workers a ScaledObject of deploy/kubernetes has.

KEDA (pkg/scaling/executor/scale_scaledobjects.go) looks every `poll_s`: a figure over its activation takes no worker to one, and
`cooldown_s` after the last such look the workers go to none. In between the HorizontalPodAutoscaler (pkg/controller/podautoscaler
of Kubernetes) looks every `sync_s`: of each figure it wants one worker for each `target`, unless that is within a tenth of what
there is; the largest number counts, then the windows of `behavior` (the lowest wish of the window to go up, the highest to go
down), then its policies (changes in the last seconds).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

#: Interval of the HorizontalPodAutoscaler, and the difference that it ignores: defaults of kube-controller-manager.
_SYNC_S, _TOLERANCE = 15.0, 0.1


@dataclass(frozen=True)
class Policy:
    """Largest change of the number of workers within a time."""

    value: int
    period_s: float
    is_percent: bool

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read a policy of a manifest."""
        return cls(document["value"], document["periodSeconds"], is_percent=document["type"] == "Percent")


@dataclass(frozen=True)
class Direction:
    """Limits of scaling up, or down."""

    window_s: float
    policies: tuple[Policy, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read `scaleUp` or `scaleDown` of a manifest."""
        return cls(document["stabilizationWindowSeconds"], tuple(map(Policy.of, document["policies"])))

    def faster(self, factor: float) -> Self:
        """Return the same with all times divided by `factor`."""
        policies = tuple(replace(policy, period_s=policy.period_s / factor) for policy in self.policies)
        return replace(self, window_s=self.window_s / factor, policies=policies)


@dataclass(frozen=True)
class Rule:
    """Rule of a ScaledObject with two triggers: waiting tasks, and the age of the oldest in seconds."""

    #: for each trigger, its value for one worker, and the value above which there are workers at all
    targets: tuple[float, ...]
    activations: tuple[float, ...]
    min_workers: int
    max_workers: int
    poll_s: float
    cooldown_s: float
    up: Direction
    down: Direction
    sync_s: float = _SYNC_S

    @classmethod
    def of(cls, scaled_object: Mapping[str, Any]) -> Self:
        """Read a ScaledObject."""
        spec = scaled_object["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        waiting, oldest = (trigger["metadata"] for trigger in spec["triggers"])
        return cls(
            targets=(float(waiting["listLength"]), float(oldest["targetValue"])),
            activations=(float(waiting["activationListLength"]), float(oldest["activationTargetValue"])),
            min_workers=spec["minReplicaCount"],
            max_workers=spec["maxReplicaCount"],
            poll_s=spec["pollingInterval"],
            cooldown_s=spec["cooldownPeriod"],
            up=Direction.of(behavior["scaleUp"]),
            down=Direction.of(behavior["scaleDown"]),
        )

    def faster(self, factor: float) -> Self:
        """Return the same rule with all its times divided by `factor`. The target of the age is a time of tasks, and stays."""
        return replace(
            self,
            poll_s=self.poll_s / factor,
            cooldown_s=self.cooldown_s / factor,
            sync_s=self.sync_s / factor,
            up=self.up.faster(factor),
            down=self.down.faster(factor),
        )


class Autoscaler:
    """Number of workers that a rule wants, at times that increase.

    Args:
        clock: returns seconds.
    """

    def __init__(self, rule: Rule, clock: Callable[[], float]) -> None:
        self._rule = rule
        self._clock = clock
        self._next_poll_s = self._next_sync_s = self._last_active_s = clock()
        #: (time, wanted number) and (time, change), the oldest first
        self._wishes: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def decide(self, workers: int, read: Callable[[], Sequence[float]]) -> int:
        """Return the wanted number of workers; the figures are read only if it is time for a look.

        Args:
            workers: number of workers now.
            read: returns the value of each trigger.
        """
        now_s = self._clock()
        if now_s >= self._next_poll_s:
            self._next_poll_s = now_s + self._rule.poll_s
            wanted = self._poll(now_s, workers, read())
            if wanted != workers:
                return wanted
        if workers and now_s >= self._next_sync_s:
            self._next_sync_s = now_s + self._rule.sync_s
            wanted = self._sync(now_s, workers, read())
            if wanted != workers:
                self._changes.append((now_s, wanted - workers))
            return wanted
        return workers

    def _poll(self, now_s: float, workers: int, values: Sequence[float]) -> int:
        """KEDA's look: the first worker, and none after the cooldown."""
        rule = self._rule
        if any(value > activation for value, activation in zip(values, rule.activations, strict=True)):
            self._last_active_s = now_s
            return workers or max(1, rule.min_workers)
        is_cold = now_s > self._last_active_s + rule.cooldown_s
        return 0 if workers and not rule.min_workers and is_cold else workers

    def _sync(self, now_s: float, workers: int, values: Sequence[float]) -> int:
        """Look as the HorizontalPodAutoscaler does; it has one worker at least."""
        rule = self._rule
        wish = max(_wish(value, target, workers) for value, target in zip(values, rule.targets, strict=True))
        self._wishes.append((now_s, min(max(wish, 1, rule.min_workers), rule.max_workers)))
        longest_s = max(rule.up.window_s, rule.down.window_s)
        self._wishes = [(at_s, wish) for at_s, wish in self._wishes if at_s >= now_s - longest_s]
        low = min(wish for at_s, wish in self._wishes if at_s >= now_s - rule.up.window_s)
        high = max(wish for at_s, wish in self._wishes if at_s >= now_s - rule.down.window_s)
        wanted = min(max(workers, low), high)
        if wanted > workers:
            return max(workers, min(wanted, max(self._limit(now_s, workers, policy, up=True) for policy in rule.up.policies)))
        if wanted < workers:
            return min(workers, max(wanted, min(self._limit(now_s, workers, policy, up=False) for policy in rule.down.policies)))
        return workers

    def _limit(self, now_s: float, workers: int, policy: Policy, *, up: bool) -> int:
        """Compute the furthest number that a policy allows, from the number at the start of its period."""
        recent = [change for at_s, change in self._changes if at_s > now_s - policy.period_s]
        before = workers - sum(recent)
        if policy.is_percent:
            share = policy.value / 100
            return math.ceil(before * (1 + share)) if up else int(before * (1 - share))
        return before + policy.value if up else before - policy.value


def _wish(value: float, target: float, workers: int) -> int:
    """Number of workers for one figure, of type AverageValue."""
    if abs(value / (target * workers) - 1) <= _TOLERANCE:
        return workers
    return math.ceil(value / target)
