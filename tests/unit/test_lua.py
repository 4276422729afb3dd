"""Scripts are put together from what they need of their includes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tenancy import lua

SCRIPTS = sorted(str(path.relative_to(lua.ROOT).with_suffix("")) for folder in lua.LAYERS for path in (lua.ROOT / folder).glob("**/*.lua"))
INCLUDED = {found for name in SCRIPTS for found in re.findall(r"^-- @include (\S+)", (lua.ROOT / f"{name}.lua").read_text(), re.MULTILINE)}
DEFINED = re.compile(r"^ *local function (\w+)", re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lua, "ROOT", tmp_path)
    for layer in lua.LAYERS:
        (tmp_path / layer).mkdir()
    return tmp_path


def test_a_script_has_of_its_includes_what_it_can_reach_and_all_that_is_its_own(folder: Path) -> None:
    (folder / "tenancy" / "low.lua").write_text(
        "local A = 1\nlocal function far(x)\n  return x\nend\n-- As far, not near.\nlocal function near(x) return far(x) end\n"
        "local function never(x)\n  if x then return near(x) end\nend\n"
    )
    (folder / "cost" / "script.lua").write_text("-- @include tenancy/low\nlocal function own()\n  return 1\nend\nreturn near(A)\n")
    text = lua.load.__wrapped__("cost/script").text
    assert text.splitlines() == [
        "local A = 1",
        "local function far(x)",
        "  return x",
        "end",
        "local function near(x) return far(x) end",
        "",
        "local function own()",
        "  return 1",
        "end",
        "return near(A)",
    ]


def test_a_script_includes_nothing_of_a_higher_folder(folder: Path) -> None:
    (folder / "cost" / "high.lua").write_text("return 1\n")
    (folder / "tenancy" / "script.lua").write_text("-- @include cost/high\nreturn 1\n")
    with pytest.raises(ValueError, match=r"tenancy/script\.lua includes cost/high\.lua from a higher folder"):
        lua.load.__wrapped__("tenancy/script")


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in INCLUDED])
def test_no_script_misses_a_function_that_it_names(name: str) -> None:
    text = lua.load(name).text
    known = {found for other in SCRIPTS for found in DEFINED.findall((lua.ROOT / f"{other}.lua").read_text())}
    code = re.sub(r"--.*$|'[^'\n]*'|\"[^\"\n]*\"", "", text, flags=re.MULTILINE)
    called = {found for found in re.findall(r"(?<![\w.:])(\w+)\(", code) if found in known}
    assert called <= set(DEFINED.findall(text))
