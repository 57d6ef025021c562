"""Bytes in, decompressed chunks out, with memory bounded whatever the file claims to be.

Notable choices:
* gzip and zstd are recognised by their magic bytes; both may hold several members.
* Everything before a break is handed out before `BrokenStreamError` is raised.
* zstd is fed in slices of 256 bytes because its decoder has no output limit: a slice of run-length
  blocks can blow up to about 8 MiB, a whole chunk of them to tens of gigabytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import zstandard

CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SLICE = 256
_ZSTD_WINDOW = 1 << 27


class BrokenStreamError(Exception):
    """A compressed stream that ends early or does not decompress; the message says which."""


def decompress(raw: BinaryIO, on_read: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """Chunks of about 1 MiB of the decompressed content of `raw`.

    `on_read` is told the size of each piece read from `raw`. Raises BrokenStreamError.
    """
    pieces = _pieces(raw, on_read)
    head = next(pieces, b"")
    if head.startswith(_GZIP):
        yield from _gather(_gunzip(head, pieces))
    elif head.startswith(_ZSTD):
        yield from _gather(_unzstd(head, pieces))
    elif head:
        yield head
        yield from pieces


def _pieces(raw: BinaryIO, on_read: Callable[[int], None]) -> Iterator[bytes]:
    while piece := raw.read(CHUNK):
        on_read(len(piece))
        yield piece


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces to whole chunks; on a break the pieces before it come first."""
    gathered: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            gathered.append(piece)
            size += len(piece)
            if size >= CHUNK:
                yield b"".join(gathered)
                gathered, size = [], 0
    except BrokenStreamError:
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


def _gunzip(data: bytes, more: Iterator[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    while data:
        try:
            piece = member.decompress(data, CHUNK)
        except zlib.error as error:
            raise BrokenStreamError(f"the gzip stream is damaged: {error}") from error
        if piece:
            yield piece
        if member.eof:
            data = member.unused_data.lstrip(b"\0") or next(more, b"")  # zero padding is legal
            member = zlib.decompressobj(wbits=31)
        else:
            data = member.unconsumed_tail or next(more, b"")
            if not data:
                raise BrokenStreamError("the gzip stream ends before its end marker: the file is truncated")


def _unzstd(data: bytes, more: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = decompressor.decompressobj()
    started = False
    while data:
        for start in range(0, len(data), _ZSTD_SLICE):
            rest = data[start : start + _ZSTD_SLICE]
            while rest:
                started = True
                try:
                    piece = frame.decompress(rest)
                except zstandard.ZstdError as error:
                    raise BrokenStreamError(f"the zstd stream is damaged: {error}") from error
                if piece:
                    yield piece
                rest = b""
                if frame.eof:
                    rest = frame.unused_data
                    frame, started = decompressor.decompressobj(), False
        data = next(more, b"")
    if started:
        raise BrokenStreamError("the zstd stream ends before its end marker: the file is truncated")
