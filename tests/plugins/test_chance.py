"""Random numbers that their name alone decides."""

from __future__ import annotations

import hashlib

import numpy as np

from whitebench_tasks.chance import Stream

WORD = 2**64


def philox(counter: int, key: int) -> list[int]:
    """Philox 4x64 with ten rounds, as Salmon et al. define it (section 3.3 and table 2)."""
    x = [counter >> 64 * i & (WORD - 1) for i in range(4)]
    k = [key & (WORD - 1), key >> 64]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], WORD)
        high1, low1 = divmod(0xCA5A826395121157 * x[2], WORD)
        x = [high1 ^ x[1] ^ k[0], low1, high0 ^ x[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) % WORD, (k[1] + 0xBB67AE8584CAA73B) % WORD]
    return x


def words(name: str, count: int) -> list[int]:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return [word for counter in range(1, count // 4 + 2) for word in philox(counter, key)][:count]


def test_the_textbook_philox_gives_the_published_answer() -> None:
    # Random123's kat_vectors: counter and key zero.
    assert [f"{word:016x}" for word in philox(0, 0)] == [
        "16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b",
    ]  # fmt: skip


def test_numbers_are_the_upper_53_bits_of_philox_keyed_by_the_name() -> None:
    drawn = Stream("a").uniform(3, 5)
    assert drawn.ravel().tolist() == [(word >> 11) / 2**53 for word in words("a", 15)]
    assert drawn.shape == (3, 5)


def test_bytes_are_the_words_little_end_first() -> None:
    drawn = Stream("a").bytes(2, 16)
    assert drawn.tobytes() == b"".join(word.to_bytes(8, "little") for word in words("a", 4))


def test_a_longer_table_begins_with_the_shorter_one_and_may_be_drawn_in_parts() -> None:
    whole = Stream("a").uniform(100, 7)
    stream = Stream("a")
    np.testing.assert_array_equal(np.concatenate([stream.uniform(30, 7), stream.uniform(70, 7)]), whole)
    np.testing.assert_array_equal(Stream("a").uniform(30, 7), whole[:30])


def test_streams_of_other_names_have_nothing_in_common() -> None:
    one, other = Stream("a").uniform(1000, 1), Stream("b").uniform(1000, 1)
    assert np.intersect1d(one, other).size == 0
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 4 / 1000**0.5  # four standard errors
