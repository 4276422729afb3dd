"""Redis's append-only file after a machine without power cut it inside a transaction."""

from __future__ import annotations

import os
from pathlib import Path

import redis

from orchestrator.append_only import write_anew
from orchestrator.embedded import RedisServer

TWO_WRITES = "redis.call('HSET', KEYS[1], 'a', 1) redis.call('HSET', KEYS[1], 'b', string.rep('x', 500)) return 1"


def log_of(server: RedisServer) -> Path:
    files = [*server.directory.glob("appendonlydir/*.incr.aof"), *server.directory.glob("appendonly.aof")]
    return max(files, key=lambda file: file.stat().st_mtime)


def connect(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.client_url, decode_responses=True)


def test_a_transaction_that_a_restart_took_back_does_not_come_back_with_the_next_restart(redis_server: RedisServer) -> None:
    with connect(redis_server) as client:
        client.eval(TWO_WRITES, 1, "half")
    redis_server.kill()
    file = log_of(redis_server)
    os.truncate(file, file.stat().st_size - 100)  # within the second write
    redis_server.start()
    with connect(redis_server) as client:
        assert not client.exists("half")
        assert write_anew(client, lambda: None)
        client.eval(TWO_WRITES, 1, "whole")
    redis_server.kill()
    redis_server.start()
    with connect(redis_server) as client:
        assert client.hlen("whole") == 2
        assert not client.exists("half")


def test_a_redis_without_an_append_only_file_is_left_alone(redis_server: RedisServer) -> None:
    with connect(redis_server) as client:
        client.config_set("appendonly", "no")
        assert not write_anew(client, lambda: None)
