"""The desired state on a real server: every change one step, one proposal at a time, nothing that stays stuck."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support.models import load_spec
from support.redis_server import client_of_nobody
from support.waiting import together, until

from inference.domain import ModelRef
from inference.errors import ChangeInProgress, ServiceUnavailable
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import (
    PROPOSAL_TTL_S,
    ChangedModel,
    DesiredState,
    LoadReport,
    NewFiles,
    Proposal,
    RolloutStore,
)

FILES = NewFiles("/models/größer.h5", "s3://bucket/model.json")
NEW = ModelRef("vgg", "1+ab", "sha256:ab")
PROPOSAL = Proposal("change-1", "vgg", FILES)


@pytest.fixture
def desired(redis_client: redis.Redis, key_prefix: str) -> RolloutStore:
    return RolloutStore(redis_client, key_prefix)


@pytest.fixture(scope="module")
def digits(repository: Path) -> ModelSpec:
    return load_spec(repository / "models" / "digits")


def test_without_a_command_nothing_differs_from_the_configuration(desired: RolloutStore, digits: ModelSpec) -> None:
    state, proposal = desired.read_with_proposal()
    assert (state, proposal) == (DesiredState(), None)
    assert state.reference(digits) == ModelRef("digits", digits.version, digits.digest)


def test_the_served_model_and_the_mode_change(desired: RolloutStore) -> None:
    desired.serve("vgg")
    desired.set_ensemble(True)
    assert desired.read() == DesiredState(served="vgg", ensemble=True)
    desired.set_ensemble(False)
    assert desired.read() == DesiredState(served="vgg", ensemble=False)


class TestProposals:
    def test_one_that_is_committed_is_the_state(self, desired: RolloutStore) -> None:
        desired.propose(PROPOSAL)
        assert desired.read_with_proposal() == (DesiredState(), PROPOSAL)
        assert desired.commit(PROPOSAL, NEW)
        state = DesiredState(models={"vgg": ChangedModel(FILES, NEW)})
        assert desired.read_with_proposal() == (state, None)

    def test_one_that_is_withdrawn_leaves_the_state(self, desired: RolloutStore) -> None:
        desired.propose(PROPOSAL)
        desired.withdraw(PROPOSAL.change_id)
        assert desired.read_with_proposal() == (DesiredState(), None)
        assert not desired.commit(PROPOSAL, NEW)
        assert desired.read_with_proposal() == (DesiredState(), None)

    def test_a_commit_that_is_said_again_counts_once(self, desired: RolloutStore) -> None:
        """The first answer got lost, and the client sent the commit again."""
        desired.propose(PROPOSAL)
        assert desired.commit(PROPOSAL, NEW)
        desired.reset()
        assert desired.commit(PROPOSAL, NEW)
        assert desired.read() == DesiredState()

    def test_one_may_serve_the_model_too(self, desired: RolloutStore) -> None:
        proposal = Proposal("change-1", "vgg", FILES, serve=True)
        desired.propose(proposal)
        assert desired.read_with_proposal()[1] == proposal
        assert desired.commit(proposal, NEW)
        assert desired.read().served == "vgg"

    def test_one_without_files_goes_back_to_the_configurations(self, desired: RolloutStore) -> None:
        desired.propose(PROPOSAL)
        desired.commit(PROPOSAL, NEW)
        back = Proposal("change-2", "vgg", files=None)
        desired.propose(back)
        assert desired.read_with_proposal()[1] == back
        assert desired.commit(back, ModelRef("vgg", "1", "sha256:00"))
        assert desired.read() == DesiredState()

    def test_a_second_one_is_refused(self, desired: RolloutStore) -> None:
        desired.propose(PROPOSAL)
        with pytest.raises(ChangeInProgress) as refused:
            desired.propose(Proposal("change-2", "other", None))
        assert refused.value.retry_after_s == PROPOSAL_TTL_S
        assert desired.read_with_proposal()[1] == PROPOSAL

    def test_of_many_at_once_one_is_open(self, desired: RolloutStore) -> None:
        def proposing(number: int) -> Callable[[], bool]:
            def propose() -> bool:
                try:
                    desired.propose(Proposal(f"change-{number}", "vgg", FILES))
                except ChangeInProgress:
                    return False
                return True

            return propose

        assert sorted(together([proposing(number) for number in range(8)])) == [False] * 7 + [True]

    def test_another_ones_end_leaves_it_open(self, desired: RolloutStore) -> None:
        desired.propose(PROPOSAL)
        desired.withdraw("change-0")
        assert not desired.keep_alive("change-0")
        assert not desired.commit(Proposal("change-0", "vgg", FILES), NEW)
        assert desired.read_with_proposal() == (DesiredState(), PROPOSAL)

    def test_one_that_is_held_stays_open(self, desired: RolloutStore, redis_client: redis.Redis, key_prefix: str) -> None:
        desired.propose(PROPOSAL)
        redis_client.pexpire(f"{key_prefix}:proposal", 50)
        assert desired.keep_alive(PROPOSAL.change_id)
        left_ms: Any = redis_client.pttl(f"{key_prefix}:proposal")
        assert left_ms > PROPOSAL_TTL_S * 500

    def test_one_that_nobody_holds_is_over(self, desired: RolloutStore, redis_client: redis.Redis, key_prefix: str) -> None:
        desired.propose(PROPOSAL)
        left_ms: Any = redis_client.pttl(f"{key_prefix}:proposal")
        assert 0 < left_ms <= PROPOSAL_TTL_S * 1000
        redis_client.pexpire(f"{key_prefix}:proposal", 1)
        until(lambda: desired.read_with_proposal()[1] is None, "the end of the proposal")
        assert not desired.keep_alive(PROPOSAL.change_id)
        desired.propose(Proposal("change-2", "vgg", FILES))


class TestReports:
    def test_each_worker_has_its_own(self, desired: RolloutStore) -> None:
        good = LoadReport("host:1", NEW, load_s=1.5)
        bad = LoadReport("host:2", error={"code": "invalid_model", "detail": "no zip archive"})
        for report in (good, bad):
            desired.report("change-1", report)
        assert desired.reports("change-1") == {"host:1": good, "host:2": bad}
        assert desired.reports("change-2") == {}

    def test_they_do_not_stay_for_ever(self, desired: RolloutStore, redis_client: redis.Redis, key_prefix: str) -> None:
        desired.report("change-1", LoadReport("w", NEW))
        (key,) = redis_client.scan_iter(match=f"{key_prefix}:proposal:*", count=1000)
        left_s: Any = redis_client.ttl(key)
        assert 0 < left_s <= 3600


def test_a_reset_goes_back_to_the_configuration(desired: RolloutStore) -> None:
    desired.serve("vgg")
    desired.set_ensemble(True)
    desired.propose(PROPOSAL)
    desired.commit(PROPOSAL, NEW)
    desired.reset()
    assert desired.read() == DesiredState()


def test_a_store_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with client_of_nobody(tmp_path) as client:
        desired = RolloutStore(client, "prefix")
        calls: list[Callable[[], object]] = [
            desired.read,
            desired.reset,
            lambda: desired.propose(PROPOSAL),
            lambda: desired.keep_alive("change-1"),
            lambda: desired.commit(PROPOSAL, NEW),
            lambda: desired.report("change-1", LoadReport("w")),
            lambda: desired.reports("change-1"),
            lambda: desired.set_ensemble(True),
        ]
        for call in calls:
            with pytest.raises(ServiceUnavailable):
                call()
