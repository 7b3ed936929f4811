"""How fast the tasks of a queue of the fake task store end, in the plainest way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from support.fake_task import FakeTask

from inference.messages import ModelRef, decode_outcome

_FADE_MS, _LEAST_KEPT = 2000, 0.7
_FOR_RETURNS = 0.5


@dataclass
class FakePace:
    """Counts that fade; see commit.lua and queue_stats.lua."""

    at_ms: int = 0
    model: ModelRef | None = None
    ended: float = 0.0
    busy_ms: float = 0.0
    commits: float = 0.0
    urgent: float = 0.0
    refused: float = 0.0
    refused_at_ms: int = 0

    @property
    def rate_per_s(self) -> float:
        return self.ended * 1000 / self.busy_ms if self.busy_ms else 0.0

    def urgent_per_s(self, now_ms: int) -> float:
        return self.urgent * self._fade(now_ms) * 1000 / _FADE_MS

    def stalled_s(self, now_ms: int, oldest_age_ms: int) -> float:
        if not self.busy_ms:
            return 0.0
        return max(0.0, min(now_ms - self.at_ms, oldest_age_ms) - self.busy_ms / self.commits) / 1000

    def note(self, tasks: Sequence[FakeTask], now_ms: int) -> None:
        """Tasks of one commit that ran."""
        since = min(task.created_at_ms for task in tasks)
        ran_on = [decode_outcome(task.outcome).model for task in tasks]
        model = next(filter(None, reversed(ran_on)), self.model)
        fade = self._fade(now_ms)
        kept = max(fade, _LEAST_KEPT) if model == self.model else 0.0
        worked = min(max(1, now_ms - max(self.at_ms, since)), 2 * _FADE_MS)
        self.ended = self.ended * kept + len(tasks)
        self.busy_ms = self.busy_ms * kept + worked
        self.commits = self.commits * kept + 1
        self.urgent = self.urgent * fade + sum(task.request.priority > 0 for task in tasks)
        self.at_ms, self.model = now_ms, model

    def refuse(self, tasks: int, now_ms: int) -> float:
        """Gives how many are expected to come again."""
        came = self.rate_per_s * _FOR_RETURNS * (now_ms - self.refused_at_ms) / 1000
        self.refused, self.refused_at_ms = max(0.0, self.refused - came) + tasks, now_ms
        return self.refused

    def _fade(self, now_ms: int) -> float:
        return math.exp(-(now_ms - self.at_ms) / _FADE_MS)
