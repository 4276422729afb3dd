"""What looks like a secret does not come out in a text, and ordinary words do."""

from __future__ import annotations

import time

import pytest

from orchestrator.redaction import HIDDEN, begins_a_key, ends_a_key, redacted_text, secrets_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter22 next", f"password={HIDDEN} next"),
        ('{"api_key": "abc def", "n": 1}', f'{{"api_key": {HIDDEN}, "n": 1}}'),
        ("DB_PASSWORD: 'a b c'", f"DB_PASSWORD: {HIDDEN}"),
        ("client_secret => xyz; ok", f"client_secret => {HIDDEN}; ok"),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: {HIDDEN}"),
        ("sent Bearer abcdefgh123== to it", f"sent Bearer {HIDDEN} to it"),
        ("postgresql+psycopg://ann:s3cret@db/x", f"postgresql+psycopg://ann:{HIDDEN}@db/x"),
        ("key sk-proj-abcdefghij0123456789 used", f"key {HIDDEN} used"),
        ("AKIAABCDEFGHIJKLMNOP and more", f"{HIDDEN} and more"),
        ("ghp_abcdefghijklmnopqrstuvwxyz012345", HIDDEN),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sflKxwRJSMeKKF2QT4f", HIDDEN),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", f"a\n{HIDDEN}\nb"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", HIDDEN),
        ("my literal word", f"my {HIDDEN} word"),
    ],
)
def test_a_secret_in_a_text_is_hidden(text: str, shown: str) -> None:
    assert redacted_text(text, ["literal"]) == shown


@pytest.mark.parametrize(
    "text",
    [
        "used 512 tokens of 1,000",
        "3 passed: all of them",
        "the secretary said: no",
        "https://example.com/path?x=1",
        "task-12 done, 17% at 12:30:01",
        "basic facts",
        "",
    ],
)
def test_ordinary_words_are_left_as_they_are(text: str) -> None:
    assert redacted_text(text) == text


@pytest.mark.parametrize("text", ["a." * 40_000, "x" * 80_000, "://" * 20_000, "token_" * 15_000, "-----BEGIN " * 8_000, "eyJ" * 30_000])
def test_a_text_that_was_made_to_be_slow_takes_no_time_to_speak_of(text: str) -> None:
    began = time.process_time()
    redacted_text(text)
    assert time.process_time() - began < 2.0


def test_parameters_under_a_secrets_name_are_found_however_deep_and_short_ones_left() -> None:
    params = {"db": {"password": "hunter22", "user": "ann"}, "keys": [{"api_key": ["first-key", "x"]}], "pin": "1234", "token": 5}
    assert secrets_in(params) == {"hunter22", "first-key"}


def test_a_private_key_that_is_printed_line_by_line_is_known_from_its_first_line_to_its_last() -> None:
    assert begins_a_key("x -----BEGIN EC PRIVATE KEY-----")
    assert not begins_a_key("-----BEGIN EC PRIVATE KEY----- MII -----END EC PRIVATE KEY-----")
    assert not begins_a_key("-----BEGIN CERTIFICATE-----")
    assert ends_a_key("-----END EC PRIVATE KEY-----")
