"""The example that the README shows is the one that is tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def example_of_the_test() -> str:
    """Return PIPELINE of tests/integration/test_user_project.py, without importing what that test needs."""
    tree = ast.parse((ROOT / "tests/integration/test_user_project.py").read_text())
    found = [
        ast.literal_eval(statement.value)
        for statement in tree.body
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["PIPELINE"]
    ]
    assert len(found) == 1
    return str(found[0])


def test_the_readme_shows_the_example_that_is_run() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown == [example_of_the_test()]
