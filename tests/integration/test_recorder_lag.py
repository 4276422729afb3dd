"""While the record is too far behind, nothing begins and nothing is reserved; what runs goes on."""

from __future__ import annotations

from running import until

from orchestrator.embedded import RedisServer
from orchestrator.settings import Settings
from orchestrator.state import State
from tests.integration.hands import POOL, Hands, layers, make_recorder

LAG_MS = 150


def test_without_its_recorder_a_run_begins_no_more_nodes_and_goes_on_when_it_is_back(redis_server: RedisServer, settings: Settings) -> None:
    recorder, hands = make_recorder(redis_server, settings), Hands(redis_server, settings)
    hands.enroll()
    graph = layers(3, 1)
    run, _ = hands.request(graph)
    hands.start(run, graph)
    recorder.step(None)
    running = hands.begin()
    assert running is not None
    hands.state = State(hands.link, lag_ms=LAG_MS)
    recorded_at = int(str(hands.link.read("GET", "hg1:recorded:at")))
    until(lambda: now_ms(hands) - recorded_at > 3 * LAG_MS)

    delivery = hands.queue.pop(hands.inc, POOL, 1)
    assert delivery is not None
    reserved = hands.link.read("HGET", f"hg1:purse:{run}.1", "reserved")
    assert hands.state.begin(run, 1, hands.node_of(delivery.tag)[1], hands.inc, delivery.tag, delivery.number, "w") == ["later", 2_000]
    assert hands.link.read("HGET", f"hg1:purse:{run}.1", "reserved") == reserved
    hands.finish(*running)

    def is_over() -> bool:
        recorder.step(None)
        hands.work()
        return hands.link.read("HGET", f"hg1:run:{run}.1", "status") == "ended"

    until(is_over)


def now_ms(hands: Hands) -> int:
    seconds, micros = hands.link.read("TIME")
    return int(seconds) * 1000 + int(micros) // 1000
