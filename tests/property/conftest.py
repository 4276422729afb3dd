"""How long the state machines run: `kernel` in every test run, `long` on request (--hypothesis-profile=long)."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kernel", deadline=None, print_blob=True, max_examples=120, stateful_step_count=40)
settings.register_profile("long", deadline=None, print_blob=True, max_examples=5_000, stateful_step_count=80)
