"""A task module that cuts its workers off from Celery's signals where the environment says so."""

from __future__ import annotations

import os

from cost import middleware

FLAG = "TESTS_DEAF"

if os.environ.get(FLAG):
    middleware.disconnect()
