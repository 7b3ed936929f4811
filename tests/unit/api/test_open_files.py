"""An API process may open as many files as its connections need."""

from __future__ import annotations

import resource

from inference.open_files import let_open


def test_the_systems_usual_limit_is_raised_as_far_as_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        let_open(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
        let_open(550)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
        if hard != resource.RLIM_INFINITY:
            let_open(hard + 1)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
