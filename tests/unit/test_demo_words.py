from __future__ import annotations

import pytest

from orchestrator.cli.demo.indexing import without_roles
from orchestrator.cli.demo.show import _without_log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call :meth:`retry` then", "call retry then"),
        (":py:class:`~celery.app.Task` is", "celery.app.Task is"),
        ("see :ref:`the guide <guide-tasks>`.", "see the guide."),
        ("the `json_schema` of ``x``: `y`", "the `json_schema` of ``x``: `y`"),
        ("a:b and 10:30", "a:b and 10:30"),
    ],
)
def test_a_role_of_restructured_text_is_printed_as_what_it_shows(text: str, shown: str) -> None:
    assert without_roles(text) == shown


def test_a_log_that_goes_with_its_home_is_not_pointed_to() -> None:
    assert _without_log("w1 was ended by SIGKILL, starts again in 0.25 s (see /tmp/x/logs/w1.log)") == (
        "w1 was ended by SIGKILL, starts again in 0.25 s"
    )
    assert _without_log("w1 started (pid 7)") == "w1 started (pid 7)"
