"""How the body of a response is decompressed and decoded within bounds."""

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.answer_body import CODECS, BoundedBody, codec_of

LIMIT = 1000


def read(encoding: str, *chunks: bytes) -> BoundedBody:
    body = BoundedBody(encoding, LIMIT)
    for chunk in chunks:
        if not body.add(chunk):
            break
    body.end()
    return body


def in_pieces(content: bytes, size: int) -> list[bytes]:
    return [content[first : first + size] for first in range(0, len(content), size)]


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


COMPRESS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "": bytes, "identity": bytes}


@given(st.sampled_from(sorted(COMPRESS)), st.binary(max_size=LIMIT // 2), st.integers(1, 50))
def test_any_body_is_read_whatever_pieces_it_comes_in(encoding: str, content: bytes, size: int) -> None:
    body = read(encoding, *in_pieces(COMPRESS[encoding](content), size))
    assert (bytes(body.content), body.is_truncated, body.is_undecodable) == (content, False, False)


def test_deflate_without_the_header_of_zlib_is_read() -> None:
    body = read("Deflate ", raw_deflate(b"some text " * 50))
    assert (bytes(body.content), body.is_undecodable) == (b"some text " * 50, False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", ""])
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_the_limit_counts_decompressed_bytes(encoding: str, size: int) -> None:
    body = read(encoding, COMPRESS[encoding](b"x" * size))
    assert (len(body.content), body.is_truncated) == (LIMIT, size > LIMIT)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "punycode"])
def test_another_compression_is_undecodable_unless_the_body_is_empty(encoding: str) -> None:
    assert read(encoding, b"x").is_undecodable
    assert not read(encoding).is_undecodable


def test_a_broken_or_unfinished_compression_is_undecodable() -> None:
    whole = gzip.compress(b"some text")
    assert read("gzip", b"no gzip").is_undecodable
    assert read("gzip", whole[:-3]).is_undecodable
    assert not read("gzip", whole, b"dropped").is_undecodable


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        ("", "utf-8"),
        ("text/html", "utf-8"),
        ("text/html; charset=utf-8", "utf-8"),
        ('text/html;CHARSET="ISO-8859-1"', "latin-1"),
        ("text/html; charset = windows-1252", "cp1252"),
        ("text/plain; a=b; charset=Shift_JIS", "shift_jis"),
        ("text/plain; charset=utf-16", "utf-16"),
        ("text/plain; charset=punycode", "utf-8"),
        ("text/plain; charset=utf-7", "utf-8"),
        ("text/plain; charset=", "utf-8"),
        ("text/plain" + " " * 600 + "; charset=latin1", "utf-8"),
    ],
)
def test_the_charset_names_a_codec_from_a_list(content_type: str, codec: str) -> None:
    assert codec_of(content_type) == codec


@pytest.mark.parametrize("codec", sorted(set(CODECS.values())))
@pytest.mark.parametrize("pattern", [b"-a", b"\xff", b"\x81\x30", b"\xd8\x00\xdc", b"\x1b$B", b"+\x80"])
def test_every_codec_of_the_list_is_fast_on_hostile_bytes(codec: str, pattern: bytes) -> None:
    body = pattern * (400 * 1024 // len(pattern))
    started_at = time.process_time()
    body.decode(codec, errors="replace")
    assert time.process_time() - started_at < 0.5
