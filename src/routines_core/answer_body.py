"""Reads the body of an HTTP response within bounds, whatever its headers claim. Pure code.

A receiver chooses `Content-Encoding` and `charset`. Left to the libraries, the first turns kilobytes into gigabytes,
and the second names any of Python's codecs, some of which take a minute for 400 KiB (punycode).
"""

import re
import zlib

DEFAULT_CHARSET = "utf-8"
LONGEST_CONTENT_TYPE = 500
"""Maximum length of a Content-Type header that is parsed, in characters."""

_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([a-z0-9_:.-]{1,30})", re.IGNORECASE | re.ASCII)
_UTF = {"utf-8": ("utf8",), "utf-16": ("utf16",), "utf-16-le": ("utf-16le",), "utf-16-be": ("utf-16be",)}
_SINGLE_BYTE = {
    "ascii": ("us-ascii",),
    "latin-1": ("latin1", "iso-8859-1", "iso8859-1"),
    **{f"iso8859-{part}": (f"iso-8859-{part}",) for part in (*range(2, 12), *range(13, 17))},
    **{f"cp{page}": (f"windows-{page}",) for page in range(1250, 1259)},
    "koi8-r": (),
    "koi8-u": (),
}
_EAST_ASIAN = {
    "gb18030": ("gb2312", "gbk"),
    "big5": (),
    "shift_jis": ("shift-jis", "sjis"),
    "euc_jp": ("euc-jp",),
    "euc_kr": ("euc-kr",),
}
CODECS = {
    spelling: codec
    for codec, others in (_UTF | _SINGLE_BYTE | _EAST_ASIAN).items()
    for spelling in (codec, codec.replace("_", "-"), *others)
}
"""Python's codec by the name of a charset in lower case. All of these take linear time."""

_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
_DECOMPRESSED = {"gzip": _ZLIB_OR_GZIP, "x-gzip": _ZLIB_OR_GZIP, "deflate": _ZLIB_OR_GZIP}


def codec_of(content_type: str) -> str:
    """Return the codec for the text of a body; UTF-8 if the header names no charset, or none that is known."""
    found = _CHARSET.search(content_type[:LONGEST_CONTENT_TYPE])
    return CODECS.get(found[1].lower(), DEFAULT_CHARSET) if found else DEFAULT_CHARSET


class BoundedBody:
    """Collects a body up to a limit, and decompresses it (gzip, deflate) within that limit.

    Args:
        content_encoding: The response's Content-Encoding header.
        most_bytes: The most bytes that are kept, and also the most that are read as they were sent.

    Attributes:
        content: The body so far, decompressed.
        is_truncated: Whether the body is longer than the limit; the rest is dropped.
        is_undecodable: Whether `content` is useless, because the compression is unknown or broken.
    """

    def __init__(self, content_encoding: str, most_bytes: int) -> None:
        self.content = bytearray()
        self.is_truncated = False
        self.is_undecodable = False
        self._most_bytes = most_bytes
        self._sent_bytes = 0
        self._encoding = content_encoding.strip().lower()
        self._decompressor = zlib.decompressobj(_DECOMPRESSED[self._encoding]) if self._is_compressed else None

    def add(self, chunk: bytes) -> bool:
        """Add received bytes. Returns True if more are wanted."""
        is_first = not self._sent_bytes
        self._sent_bytes += len(chunk)
        left = self._most_bytes - len(self.content) + 1
        self.content += chunk[:left] if self._decompressor is None else self._decompressed(chunk, left, is_first)
        self.is_truncated = max(len(self.content), self._sent_bytes) > self._most_bytes
        del self.content[self._most_bytes :]
        return not self.is_truncated and not self.is_undecodable

    def end(self) -> None:
        """Note that nothing more will come."""
        if not self._sent_bytes or self.is_truncated:
            return
        is_unfinished = self._decompressor is not None and not self._decompressor.eof
        self.is_undecodable |= is_unfinished or not (self._is_compressed or self._encoding in {"", "identity"})

    @property
    def _is_compressed(self) -> bool:
        return self._encoding in _DECOMPRESSED

    def _decompressed(self, chunk: bytes, most_bytes: int, is_first: bool) -> bytes:  # noqa: FBT001 - private
        if self._decompressor is None or self._decompressor.eof:
            return b""  # data after the end is dropped, as in browsers
        try:
            return self._decompressor.decompress(chunk, most_bytes)
        except zlib.error:
            if is_first and self._encoding == "deflate":  # some servers omit the zlib header
                self._decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
                return self._decompressed(chunk, most_bytes, is_first=False)
            self.is_undecodable = True
            return b""
