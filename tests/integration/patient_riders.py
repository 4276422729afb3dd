"""A task module in whose workers settlements wait for a ride as long as it takes, where the environment says so."""

from __future__ import annotations

import os

from orchestrator import riders

FLAG = "TESTS_PATIENT_RIDERS"

if os.environ.get(FLAG):
    riders.RIDE_S = 3_600
