"""The places of the transport on dictionaries: who must wait for one, and who holds one.

`docs/protocol.md` names what the scripts do; here it is written to be read. The calls are in `memory.py`.
"""

from __future__ import annotations

import math
from collections import Counter

from tenancy.transport.memory_lines import MemoryLines
from tenancy.transport.memory_state import LOWEST, PRIORITIES, RECHECK_MS, TAGS_MAX, Limit, Message, Pool, Reply, number_of

_LISTS_MAX = 10
_LOOK_AGAIN_MAX = 20


class MemoryPlaces(MemoryLines):
    """What stands in the way of a message whose turn it is, where it waits, and what is held by whom."""

    # Obstacles

    def _limits_of(self, message: Message) -> list[Limit]:
        """The limits that hold for a message; one per tenant has a key for each tenant."""
        return [
            {**limit, "key": f"{limit['key']}@{message.tenant}" if limit.get("per") == "tenant" else limit["key"]}
            for limit in message.limits or self.limits.get(message.task, ())
        ]

    def _obstacle(self, message: Message, limits: list[Limit]) -> tuple[str, int | None] | None:
        """The list to park a message in that may not go now, and in how many ms to look at that list again."""
        if message.run:
            if f"run:{message.run}" in self.paused:
                return f"pause:{message.run}", None
            if not self._run_has_place(message.run):
                return f"place:{message.run}", RECHECK_MS
        for limit in limits:
            place, wait = self._limit_has_place(limit)
            if not place:
                return f"limit:{limit['key']}", wait or RECHECK_MS
        return None

    def _run_has_place(self, run: str) -> bool:
        return run not in self.caps or self._held(run=run) < self.caps[run]

    def _limit_has_place(self, limit: Limit) -> tuple[bool, int]:
        """Whether one more may be held under a limit now, and how long until it has a token if that is what is missing."""
        if limit.get("at_once") is not None and self._held(limit=limit["key"]) >= limit["at_once"]:
            return False, 0
        wait = self._wait_for_token(limit)[0] if limit.get("rate") else 0
        return wait == 0, wait

    def _wait_for_token(self, limit: Limit) -> tuple[int, float]:
        """Milliseconds until the limit has a token, and the tokens there are. A bucket holds a tenth of a minute's, at least one."""
        size, per_ms = max(1.0, limit["rate"] / 10), limit["rate"] / 60_000
        tokens, since = self.buckets.get(limit["key"], (size, self.now_ms))
        # What was noted later than now is of a clock that was set back since: it says nothing.
        tokens = size if since > self.now_ms else min(size, tokens + (self.now_ms - since) * per_ms)
        return (math.ceil((1 - tokens) / per_ms) if tokens < 1 else 0), tokens

    def _is_removed(self, tag: str, message: Message) -> bool:
        upto = max(self.removed.get(f"tenant:{message.tenant}", 0), self.removed.get(f"run:{message.run}", 0) if message.run else 0)
        return number_of(tag) <= upto

    # Parked messages

    def parked_in(self, name: str) -> list[str]:
        """The messages that are parked in a list, the next one first."""
        return [tag for tag in self.parked.get(name, []) if tag in self.messages and self.messages[tag].place == name]

    def _park(self, tag: str, name: str, recheck_ms: int | None) -> None:
        message = self.messages[tag]
        message.place = name
        parked = self.parked.setdefault(name, [])
        parked.insert(0 if message.let_out_of == name else len(parked), tag)
        if recheck_ms is not None:
            self.recheck[name] = min(self.recheck.get(name, self.now_ms + recheck_ms), self.now_ms + recheck_ms)

    def _is_on_its_way(self, name: str, pool: str) -> bool:
        """Whether a message of this pool was let out of a list, and only its turn is missing."""
        message = self.messages.get(self.out.get((name, pool), ""))
        return message is not None and message.place == "q" and message.let_out_of == name and message.tenant not in self.blocked

    def _unpark(self, name: str, *, patient: bool = False) -> None:
        """The oldest message parked in a list whose tenant is not blocked goes back in line, first.

        patient: none of a pool where one is on its way already.
        """
        self.parked[name] = self.parked.get(name, [])
        # Forgotten ones count in what is looked at, as in the script, and are gone from the list then.
        for tag in list(self.parked[name])[: _LOOK_AGAIN_MAX if patient else TAGS_MAX]:
            message = self.messages.get(tag)
            if message is None or message.place != name:
                self.parked[name].remove(tag)
            elif message.tenant not in self.blocked and not (patient and self._is_on_its_way(name, message.pool)):
                self.parked[name].remove(tag)
                message.let_out_of = name
                self.out[name, message.pool] = tag
                self._line_up(tag, first=True)
                return

    def _look_again(self) -> None:
        """A token is due, or what was let out is held up by its tenant or its pool."""
        due = sorted((when, name) for name, when in self.recheck.items() if when <= self.now_ms)
        for _, name in due[:_LISTS_MAX]:
            del self.recheck[name]
            self._unpark(name, patient=True)
            if self.parked[name]:
                self.recheck[name] = self.now_ms + RECHECK_MS

    def _pass_on(self, message: Message) -> None:
        """A message that had been let out does not go after all: the place that it was let out for is the next one's."""
        if not message.let_out_of:
            return
        self.out.pop((message.let_out_of, message.pool), None)
        if message.run and self._run_has_place(message.run):
            self._unpark(f"place:{message.run}")
        for limit in self._limits_of(message):
            if self._limit_has_place(limit)[0]:
                self._unpark(f"limit:{limit['key']}")

    def _let_follow(self, name: str, message: Message) -> None:
        """A message that had been let out is held. There may be more room than for it alone: a cap was raised, a limit is gone."""
        kind, _, key = name.partition(":")
        if kind == "place":
            room = self._run_has_place(key)
        else:
            same = [limit for limit in message.taken if limit["key"] == key]
            room = all(not limit.get("rate") and self._limit_has_place(limit)[0] for limit in same[-1:])
        if room:
            self._unpark(name)

    # Held messages

    def _deliver(self, inc: str, pool: Pool, tenant: str, level: int, tag: str, limits: list[Limit]) -> Reply:
        message = self.messages[tag]
        pool.ages.pop((tenant, level), None)
        for priority in PRIORITIES:
            if priority != level and (message.pool, tenant, priority) in self.queues:
                pool.ages[tenant, priority] = pool.ages.get((tenant, priority), 0) + 1
        message.cost_ms = self.expected.get((tenant, message.task), message.cost_ms)
        pool.clock = pool.ready[tenant]
        pool.finished[tenant] = pool.ready[tenant] = pool.clock + max(1, message.cost_ms // self.rule(tenant).weight)
        self._hold(inc, tag, limits)
        if self._is_at_cap(tenant):
            self._block(tenant)
        self._ring(pool)
        raised = self.timeouts.get(message.run, {})
        limit = [seconds for name, seconds in raised.items() if name == "*" or f"{message.once}.".startswith(f"{name}.")]
        return [tag, message.payload, message.deliveries, *([max(limit)] if limit else [])]

    def _hold(self, inc: str, tag: str, limits: list[Limit]) -> None:
        message = self.messages[tag]
        for limit in limits:
            if limit.get("rate"):
                self.buckets[limit["key"]] = (round(self._wait_for_token(limit)[1] - 1, 6), self.now_ms)
                if self.parked.get(f"limit:{limit['key']}"):
                    self.recheck[f"limit:{limit['key']}"] = self.now_ms + self._wait_for_token(limit)[0]
        name, message.let_out_of = message.let_out_of, ""
        message.place, message.taken = "h", tuple(dict(limit) for limit in limits)
        message.deliveries += 1
        self.unacked.setdefault(inc, {})[tag] = message.deliveries
        self.popped[tag] = self.noted[tag] = self.now_ms
        self.charged[tag] = message.cost_ms
        if name:
            self.out.pop((name, message.pool), None)
            self._let_follow(name, message)

    def _let_go(self, inc: str, tag: str) -> None:
        """Take a tag from who holds it: the places it took are free, its tenant's clock is corrected by what it really took.

        That is nothing where the clock was set back meanwhile.
        """
        del self.unacked[inc][tag]
        if not self.unacked[inc]:
            del self.unacked[inc]
        message = self.gone.pop(tag, None) or self.messages[tag]
        took = max(0, self.now_ms - self.popped.pop(tag))
        limits, message.taken = message.taken, ()
        if message.run:
            self._unpark(f"place:{message.run}")
        for limit in limits:
            self._unpark(f"limit:{limit['key']}")
        if message.task:
            known = self.expected.get((message.tenant, message.task), took)
            self.expected[message.tenant, message.task] = max(1, known + (took - known) // 8)
        self._correct(message, took - self.charged.pop(tag))
        self._serve(message.tenant, self.now_ms - self.noted.pop(tag))
        self._unblock(message.tenant)

    def _correct(self, message: Message, ms: int) -> None:
        """Move a tenant's virtual time by worker time that it was not charged for yet, or was charged too much."""
        pool = self._pool(message.pool)
        finish = pool.finished.get(message.tenant, 0) + ms // self.rule(message.tenant).weight
        pool.finished[message.tenant] = finish
        if message.tenant in pool.ready:
            pool.ready[message.tenant] = max(pool.clock, finish)

    def _serve(self, tenant: str, ms: int) -> None:
        """Note worker time that a tenant received, in the minute in which it is noted."""
        if ms > 0:
            self.served.setdefault(self.now_ms // 60_000, Counter())[tenant] += ms

    def _account_for_held(self, inc: str) -> None:
        """What is held is noted as it goes, and charged where it runs for longer than it was expected to."""
        for tag in self.unacked.get(inc, {}):
            if self.now_ms <= self.noted[tag]:
                continue
            message = self._message(tag)
            overdue = max(0, self.now_ms - self.popped[tag] - self.charged[tag])
            self._serve(message.tenant, self.now_ms - self.noted[tag])
            self.noted[tag] = self.now_ms
            self.charged[tag] += overdue
            if overdue > 0:
                self._correct(message, overdue)

    def _release(self, inc: str, tag: str, delay_ms: int = 0, *, demote: bool = False) -> None:
        """Take a tag from who holds it: back in line, first, or delayed."""
        self._let_go(inc, tag)
        if tag not in self.messages:
            return
        if demote:
            self.messages[tag].priority = min(self.messages[tag].priority + 2, LOWEST)
        if delay_ms > 0:
            self._delay(tag, delay_ms)
        else:
            self._line_up(tag, first=True)

    def _delay(self, tag: str, delay_ms: int) -> None:
        self.messages[tag].place = "d"
        self.delayed[tag] = self.now_ms + delay_ms

    def _wake_delayed(self) -> None:
        due = sorted((when, tag) for tag, when in self.delayed.items() if when <= self.now_ms)
        for _, tag in due[:TAGS_MAX]:
            del self.delayed[tag]
            self._line_up(tag)

    def _bury_letter(self, tag: str, reason: str) -> None:
        self.messages[tag].place = "x"
        self.dead_letters[tag] = reason
        self._append("message.dead", tenant=self.messages[tag].tenant, tag=tag, reason=reason)

    # The end of a message

    def _outstanding(self, once: str) -> bool:
        return self.once.get(once) in self.messages

    def _drop(self, tag: str) -> None:
        """Forget a message wherever it is; one that is held takes its places until its holder lets go of it."""
        message = self.messages.get(tag)
        if message is None:
            return
        if tag in self.popped:
            self.gone[tag] = message
        if message.place == "q":
            self._leave_line(tag)
        del self.messages[tag]
        if message.place == "q":
            self._pass_on(message)
        self.delayed.pop(tag, None)
        self.dead_letters.pop(tag, None)
        if self.once.get(message.once) == tag:
            del self.once[message.once]

    def _drop_once(self, once: str) -> None:
        if once in self.once:
            self._drop(self.once[once])
