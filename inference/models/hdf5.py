"""Check of untrusted H5 files at every level before Keras reads them.

In the format (HDF5 File Format Specification 3.0) a file can name other files, as links, as external storage and as sources of
virtual datasets: HDF5 opens them with the rights of the process, and no digest covers them. A few bytes can also represent
terabytes, as a dataset with a fill value and without storage, or as a compressed chunk.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from math import prod
from typing import Any

import h5py  # type: ignore[import-untyped]
from h5py import h5a, h5d, h5o, h5z

from inference.errors import shown_name
from inference.models.archives import ModelFileLimits, is_expanded

#: Limit of groups, of datasets, and of attributes of one object: far more than any model has.
_MAX_OBJECTS = 100_000
_MAX_ATTRIBUTES = 10_000
#: Filters by HDF5's numbers. A dataset may use each of them once at most, so that data are not compressed twice.
_FILTERS = (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32)
_CHECKSUM_BYTES = 4
#: Start of all refusals; the same as in Keras' own.
_REFUSED = "Not allowed: H5 file with"


def check_h5(file: h5py.File, limits: ModelFileLimits) -> None:
    """Check the whole content of an open file.

    Raises:
        ValueError: the file names other files, or has more objects or data than the file of a model.
    """
    stored = file.id.get_filesize()
    checked = _DataTotal(stored, limits)
    for name, item in _objects(file):
        checked.attributes(name, item)
        if isinstance(item, h5py.Dataset):
            checked.dataset(name, item)


class _DataTotal:
    """Total memory that the objects of a file need when they are read."""

    def __init__(self, stored: int, limits: ModelFileLimits) -> None:
        self._stored = stored
        self._limits = limits
        self._size = 0

    def attributes(self, name: str, item: Any) -> None:
        count = h5a.get_num_attrs(item.id)
        if count > _MAX_ATTRIBUTES:
            raise ValueError(f"{_REFUSED} {count} attributes at {_short(name)}")
        for number in range(count):
            attribute = h5a.open(item.id, index=number)
            self._add(_size(attribute.shape, attribute.get_type(), self._stored), name)

    def dataset(self, name: str, item: h5py.Dataset) -> None:
        properties = item.id.get_create_plist()
        if properties.get_external_count() or item.is_virtual:
            raise ValueError(f"{_REFUSED} data in other files: {_short(name)}")
        self._add(_size(item.shape or (), item.id.get_type(), self._stored), name)
        if item.chunks is None:
            return
        chunk_bytes = _size(item.chunks, item.id.get_type(), self._stored)
        self._add(max(0, chunk_bytes - item.nbytes), name)
        if properties.get_nfilters():
            _check_filters(name, item, properties, chunk_bytes)

    def _add(self, size: int, name: str) -> None:
        self._size += size
        if self._size > self._limits.max_bytes or is_expanded(self._size, self._stored):
            raise ValueError(
                f"{_REFUSED} much more data when it is read than the file has bytes ({self._stored}), at {_short(name)}"
            )


def _objects(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Yield every object that hard links refer to, once; soft links refer to one of these objects or to nothing."""
    waiting: list[tuple[str, Any]] = [("/", file["/"])]
    seen = {h5o.get_info(file["/"].id).addr}
    while waiting:
        path, item = waiting.pop()
        yield path, item
        if not isinstance(item, h5py.Group):
            continue
        if len(item) + len(seen) > _MAX_OBJECTS:
            raise ValueError(f"{_REFUSED} more than {_MAX_OBJECTS} objects")
        for name in item:
            link = item.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{_REFUSED} a link to another file: {_short(name)}")  # noqa: TRY004 the file is wrong, not a type
            found = item[name]
            address = h5o.get_info(found.id).addr
            if address not in seen:
                seen.add(address)
                waiting.append((f"{path.rstrip('/')}/{name}", found))


def _size(shape: tuple[int, ...], kind: Any, stored: int) -> int:
    """Estimate the bytes of an array in memory; each text of variable length may be as long as the whole file."""
    count = prod(shape)
    if _has_variable_length(kind):
        return count * stored if shape else 0
    return count * int(kind.get_size())


def _has_variable_length(kind: Any) -> bool:
    return bool(kind.detect_class(h5py.h5t.VLEN)) or (kind.get_class() == h5py.h5t.STRING and bool(kind.is_variable_str()))


def _check_filters(name: str, item: h5py.Dataset, properties: Any, chunk_bytes: int) -> None:
    """Raise ValueError if a chunk is larger than declared when decompressed, or has an unsupported compression."""
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    if filters != [known for known in _FILTERS if known in filters]:
        raise ValueError(f"{_REFUSED} data with an unsupported compression, at {_short(name)}; use gzip, or none")
    if h5z.FILTER_DEFLATE not in filters:
        return
    position = filters.index(h5z.FILTER_DEFLATE)
    for number in range(item.id.get_num_chunks()):
        offset = item.id.get_chunk_info(number).chunk_offset
        mask, stored = h5d.DatasetID.read_direct_chunk(item.id, offset)
        if mask >> position & 1:
            continue
        end = len(stored) - (_CHECKSUM_BYTES if h5z.FILTER_FLETCHER32 in filters else 0)
        decompressor = zlib.decompressobj()
        if len(decompressor.decompress(stored[:end], chunk_bytes + 1)) > chunk_bytes:
            raise ValueError(f"{_REFUSED} a chunk that is larger when decompressed than it declares, at {_short(name)}")


def _short(name: str) -> str:
    """Return the last part of an object's name: clients may not see more of a file."""
    return shown_name(name.rpartition("/")[2] or "its root")
