"""The entropy coder: sizes, escapes, damaged bytes."""

import math

import numpy as np
import pytest

from distillkit.codec.coder import MAX_SYMBOL, TableCoder
from distillkit.errors import BitstreamError, PairError

# Symbols -1, 0 and 1 (frequencies 1/4, 1/2, 1/8, escape 1/8); 5 and 6 (1/2, 1/4, escape 1/4); 0 for sure, nearly.
CDF = np.array([[0, 16384, 49152, 57344, 65536], [0, 32768, 49152, 65536, 0], [0, 65535, 65536, 0, 0]])
CODER = TableCoder(CDF, np.array([5, 4, 3]), np.array([-1, 5, 0]), "test")


def step(symbols, indexes):
    return np.array(symbols, np.int32), np.array(indexes, np.int32)


def round_trip(steps, coder=CODER):
    data = coder.encode(steps)
    decoder = coder.decoder(data)
    for symbols, indexes in steps:
        np.testing.assert_array_equal(decoder.decode(indexes), symbols)
    decoder.finish()
    return data


def test_size_is_the_information():
    """By hand: 1000 symbols of 2 bits, 500 of 1 and 1500 of 3 are 7000 bits, 875 bytes."""
    symbols = np.repeat(np.array([-1, 0, 1], np.int32), [1000, 500, 1500])
    np.random.default_rng(0).shuffle(symbols)
    assert abs(len(round_trip([step(symbols, np.zeros(3000))])) - 875) <= 4


def test_a_sure_symbol_costs_nothing():
    assert len(round_trip([step(np.zeros(5000), np.full(5000, 2))])) <= 4  # 5000 * 2.2e-5 bits


def test_escapes_cost_their_length_and_lower_bits():
    """By hand: 5 + 2**10 is number 2 * (2**10 - 2) of 11 bits: 2 for the escape, log2(25), 10 lower bits."""
    each = 2 + math.log2(25) + 10
    assert abs(len(round_trip([step(np.full(400, 5 + 2**10), np.ones(400))])) - 400 * each / 8) <= 4


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [step([], [])],
        [step([], []), step([0], [0]), step([], [])],
        [step([7], [1])],
        [step([4], [1])],
        [step([MAX_SYMBOL, -MAX_SYMBOL, 0], [0, 0, 0])],
        [step([MAX_SYMBOL, -MAX_SYMBOL], [2, 1])],
        [step([0, 5, 0, -1, 6, 1], [0, 1, 2, 0, 1, 0]), step([100, -100, 5], [0, 2, 1])],
        [step(np.arange(-40, 40), np.arange(80) % 3)],
    ],
)
def test_round_trip(steps):
    round_trip(steps)


def test_round_trip_of_many_random_steps():
    random = np.random.default_rng(1)
    for _ in range(30):
        sizes = random.integers(0, 60, random.integers(1, 6))
        round_trip([step(random.normal(0, 10 ** random.uniform(0, 5), n), random.integers(0, 3, n)) for n in sizes])


def test_more_than_256_tables_that_are_all_equal():
    coder = TableCoder(np.tile(CDF[0], (300, 1)), np.full(300, 5), np.full(300, -1), "test")
    random = np.random.default_rng(2)
    round_trip([step(random.integers(-2, 3, 5000), random.integers(0, 300, 5000))], coder)


def test_nothing_is_no_bytes():
    assert CODER.encode([]) == b""


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 17, 200])
def test_any_bytes_decode_to_something_and_never_further(size):
    random = np.random.default_rng(size)
    for _ in range(50):
        data = random.bytes(size)
        if data.endswith(b"\0"):
            continue
        decoder = CODER.decoder(data)
        symbols = decoder.decode(random.integers(0, 3, 3000).astype(np.int32))
        assert abs(symbols.astype(np.int64)).max() <= 2**24


def test_bytes_that_are_left_are_noticed():
    data = CODER.encode([step(np.arange(-40, 40), np.zeros(80))])
    decoder = CODER.decoder(data)
    decoder.decode(np.zeros(40, np.int32))
    with pytest.raises(BitstreamError, match="to end with its last symbol"):
        decoder.finish()


def test_a_zero_byte_at_the_end_is_noticed():
    with pytest.raises(BitstreamError, match="ends in no zero byte"):
        CODER.decoder(b"abc\0")


def test_a_symbol_that_is_too_large_is_refused():
    with pytest.raises(PairError, match=f"up to {MAX_SYMBOL} from their means, got {MAX_SYMBOL + 1}"):
        CODER.encode([step([MAX_SYMBOL + 1], [0])])


@pytest.mark.parametrize(
    ("cdf", "lengths", "offsets", "message"),
    [
        (np.zeros((0, 0)), np.zeros(0), np.zeros(0), "expected tables of shape"),
        (CDF, np.array([5, 4]), np.array([-1, 5, 0]), "expected tables of shape"),
        (CDF, np.array([5, 5, 3]), np.array([-1, 5, 0]), "frequencies that rise"),
        (CDF, np.array([5, 4, 2]), np.array([-1, 5, 0]), "frequencies that rise"),
        (CDF, np.array([5, 4, 3]), np.array([-1, 2**23, 0]), "symbols up to"),
    ],
)
def test_tables_that_are_none(cdf, lengths, offsets, message):
    with pytest.raises(PairError, match=message):
        TableCoder(cdf, lengths, offsets, "entropy model y")


def test_a_few_bytes_that_claim_many_symbols_are_refused_before_they_are_decoded():
    """By hand: 3 million symbols of log2(65536 / 49152) bits or more: 0.9 * 1245112 less 8192 bits, 139051 bytes."""
    coder = TableCoder(np.array([[0, 8192, 57344, 65536]]), np.array([4]), np.array([0]), "z")
    for data in (b"", b"\1\2\3"):
        with pytest.raises(BitstreamError, match=f"a substream of at least 139051 bytes .* got {len(data)};"):
            coder.decoder(data).decode(np.zeros(3_000_000, np.int64))


@pytest.mark.parametrize("likeliest", [65534, 65000, 40000, 23000])
def test_all_of_the_likeliest_symbol_still_decodes(likeliest):
    rest = (65536 - likeliest) // 2
    coder = TableCoder(np.array([[0, rest, rest + likeliest, 65536]]), np.array([4]), np.array([0]), "y")
    symbols, indexes = np.ones(200_000, np.int32), np.zeros(200_000, np.int64)  # the shortest that there is
    decoder = coder.decoder(coder.encode([(symbols, indexes)]))
    for part in np.split(indexes, 4):
        assert (decoder.decode(part) == 1).all()
    decoder.finish()


def test_symbols_that_leave_nothing_in_an_empty_coder():
    """The first symbol of a table is such: a likely one is no fault, only unlikely ones are, which no model gives."""
    likely, unlikely = ([0, 40000, 65535, 65536], [0, 10000, 60000, 65536])
    symbols, indexes = np.zeros(200_000, np.int32), np.zeros(200_000, np.int64)
    coder = TableCoder(np.array([likely]), np.array([4]), np.array([0]), "y")
    assert coder.encode([(symbols, indexes)]) == b""
    assert not coder.decoder(b"").decode(indexes).any()
    coder = TableCoder(np.array([unlikely]), np.array([4]), np.array([0]), "y")
    with pytest.raises(PairError, match="y: expected .* bytes or more, got 0: nearly all latents are the smallest"):
        coder.encode([(symbols, indexes)])
    assert coder.encode([(symbols[:8000], indexes[:8000])]) == b""  # a small picture's may be by chance
