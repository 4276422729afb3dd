"""What operators do to dead letters: put back in line, or forgotten for good; each with its line in the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.note import note
from tenancy.errors import Unknown
from tenancy.link import Link
from tenancy.transport import letters
from tenancy.transport.letters import Letter

NOTED_MAX = 20
"""Tags in a line of the audit; it says how many there were."""


@dataclass(frozen=True, slots=True)
class Acted:
    """How many letters it was done to, and those that stay where they are."""

    moved: int
    left: tuple[Letter, ...]


def act(link: Link, what: Literal["requeue", "discard"], tags: Sequence[str] | None, *, by: str | None, reason: str) -> Acted:
    """Do it to the letters of these tags, to all of them for None, and return what was done.

    A node that died with its letter has failed with it: its letter can be forgotten, and not put back. Raises Unknown for a tag that no
    letter has, before anything is done; Unavailable and Fenced.
    """
    found = {letter.tag: letter for letter in letters.letters(link)}
    for tag in tags or ():
        if tag not in found:
            raise Unknown(f"there is no dead letter {tag!r}; `headgate queues letters` lists them")
    chosen = [found[tag] for tag in (found if tags is None else dict.fromkeys(tags))]
    left = tuple(letter for letter in chosen if letter.run and what == "requeue")
    moving = [letter.tag for letter in chosen if not (letter.run and what == "requeue")]
    note(link, f"letters.{what}", "platform", by, reason, count=len(moving), tags=[letter.tag for letter in chosen][:NOTED_MAX])
    return Acted(letters.act(link, what, moving), left)
