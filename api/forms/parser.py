"""Parser of request bodies that are forms.

multipart/form-data is read by the library `multipart`: Werkzeug's parser takes 20 times as long for many small files.

    part named image         a file, with or without a file name; if it may be a plain field, its file name is None
    other known name         text, even if it was sent as a file (a browser's Blob, `curl -F metadata=@m.json`)
    any other part           only its name is kept, for the error
"""

from __future__ import annotations

import codecs
import re
from io import BytesIO
from typing import IO, Any
from urllib.parse import parse_qsl

from multipart import MultipartSegment, ParserError, ParserLimitReached, PushMultipartParser
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.formparser import FormDataParser

from api.forms.json_body import check_no_json
from api.forms.known_fields import AS_A_FILE, IMAGE, TEXT_FIELDS
from api.forms.spool import Spool, content_of
from inference.errors import InferenceError, InvalidRequest, PayloadTooLarge, UnsupportedContentEncoding, shown, shown_name
from inference.runtime.gevent import yield_to_other_greenlets

#: Allowed parts of a form in addition to the images, so that the error for too many images can say how many are allowed.
OTHER_PARTS = 1000
_READ_BYTES = 2**18
#: Limit for the headers of one part. It is large because long file names are allowed.
_MAX_HEADER_BYTES = 2**20
_MAX_HEADERS = 32
#: Headers that declare that the bytes of a part are encoded, spelled as the library spells them.
_ENCODING_HEADERS = {"Content-Transfer-Encoding", "Content-Encoding"}
#: Limit for a whole form: for each folded line the library copies the header again.
_MAX_FOLDED_LINES = 50
_TOO_MANY_FOLDED_LINES = "Maximum number of folded header lines exceeded"

_TEXT_TYPES = {None, "", "text/plain"}
_ENCODINGS = {"utf-8", "ascii", "iso8859-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"}
_UNENCODED = {"", "identity", "binary", "8bit", "7bit"}
#: Bytes that text does not contain, and binary numbers do.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
#: Bytes of a content that are checked before other greenlets may run.
_CHECKED_BLOCK_BYTES = 2**20
_UTF8_DECODER = codecs.getincrementaldecoder("utf-8")

_BOUNDARY = re.compile(r""";\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))""", re.IGNORECASE)

_LIMITS = {
    _TOO_MANY_FOLDED_LINES: f"the headers of the form's parts have more than {_MAX_FOLDED_LINES} folded lines",
    "Maximum segment header length exceeded": f"a header of a part of the form is longer than {_MAX_HEADER_BYTES} bytes",
    "Maximum segment header count exceeded": f"a part of the form has more than {_MAX_HEADERS} headers",
}
_LINE_ENDS = "the lines of the form do not end in CR LF"
_AFTER_BOUNDARY = "other bytes follow a boundary on the same line"
_BAD_HEADER = "a header line of a part of the form is not NAME: VALUE followed by CR LF"
_PART_LENGTH = "the Content-Length of a part of the form is not the length of its content"
_BROKEN = {
    "Unexpected byte in front of first boundary": "other bytes are before the first boundary on the same line",
    "Invalid line break after first boundary": _LINE_ENDS,
    "Invalid line break in segment header": _LINE_ENDS,
    "Unexpected byte after first boundary": _AFTER_BOUNDARY,
    "Unexpected bytes after boundary": _AFTER_BOUNDARY,
    "Unexpected segment header continuation": _BAD_HEADER,
    "Empty segment header continuation": _BAD_HEADER,
    "Malformed segment header": _BAD_HEADER,
    "Invalid segment header name": _BAD_HEADER,
    "Multiple segment Content-Length headers": _PART_LENGTH,
    "Invalid segment Content-Length header value": _PART_LENGTH,
    "Segment Content-Length exceeded": _PART_LENGTH,
    "Segment size does not match Content-Length header": _PART_LENGTH,
    "Missing Content-Disposition segment header": "a part of the form has no Content-Disposition",
    "Invalid Content-Disposition segment header: Wrong type": "the Content-Disposition of a part is not form-data",
}
_EXPECTED_FORM = "multipart/form-data as HTTP clients write it, e.g. curl -F image=@photo.jpg …"


class FormParser(FormDataParser):
    """Reads forms; images are kept by a `Spool`, texts in memory.

    Raises:
        InferenceError: the body does not match its Content-Type, or the form exceeds a limit.
    """

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str] | None = None
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        """Return the stream, the text fields and the files; a body of another media type is not read."""
        form: MultiDict[str, str] = MultiDict()
        files: MultiDict[str, FileStorage] = MultiDict()
        match mimetype:
            case "multipart/form-data":
                form, files = self._read_multipart(stream, content_length, options or {})
            case "application/x-www-form-urlencoded":
                form = self._read_urlencoded(stream, options or {})
        return stream, form, files

    def _read_multipart(
        self, stream: IO[bytes], content_length: int | None, options: dict[str, str]
    ) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
        boundary = options.get("boundary", "").encode("latin-1", "replace")
        if not boundary:
            check_no_json(stream.read(_READ_BYTES), "multipart/form-data")
            raise InvalidRequest(
                "the Content-Type multipart/form-data has no boundary",
                field="Content-Type",
                expected="the Content-Type that the HTTP client sets by default: multipart/form-data; boundary=…",
            )
        parts = _Parts(self.max_form_memory_size, options.get("charset"))
        try:
            self._read_parts(parts, _Body(stream, b"--" + boundary), boundary, content_length)
        except BaseException:
            parts.close()
            raise
        return parts.form, parts.files

    def _read_parts(self, parts: _Parts, body: _Body, boundary: bytes, content_length: int | None) -> None:
        try:
            parser = _Parser(
                boundary,
                content_length=-1 if content_length is None else content_length,
                max_header_size=_MAX_HEADER_BYTES,
                max_header_count=_MAX_HEADERS,
                max_segment_count=self.max_form_parts or float("inf"),
                header_charset="latin-1",  # every file name is valid in Latin-1
            )
            for event in parser.parse_blocking(body.read, _READ_BYTES):
                parts.take(event)
        except ParserLimitReached as error:
            raise self._limit_reached(str(error), len(parts.files.getlist(IMAGE))) from error
        except ParserError as error:
            raise _broken_form(error, body, parts, boundary) from error

    def _limit_reached(self, limit: str, images: int) -> PayloadTooLarge:
        max_parts = self.max_form_parts or 0
        max_images = max_parts - OTHER_PARTS
        if limit not in _LIMITS and 0 < max_images < images:
            detail = f"the form has more than {max_parts} parts, most of them images"
            return PayloadTooLarge(detail, field=IMAGE, expected=f"at most {max_images} (batch.max_items)")
        detail = _LIMITS.get(limit, f"the form has more than {max_parts} parts")
        return PayloadTooLarge(detail, expected="fewer and shorter form fields")

    def _read_urlencoded(self, stream: IO[bytes], options: dict[str, str]) -> MultiDict[str, str]:
        limit = self.max_form_memory_size
        body = stream.read() if limit is None else stream.read(limit + 1)
        check_no_json(body, "application/x-www-form-urlencoded")
        encoding = _encoding(options.get("charset"), "Content-Type")
        is_cut = limit is not None and len(body) > limit
        if not _is_plain_text(body, is_cut=is_cut):
            detail = "the body is not text, though its Content-Type is application/x-www-form-urlencoded"
            raise InvalidRequest(detail, field=IMAGE, expected=AS_A_FILE)
        if limit is not None and is_cut:
            raise _too_much_text(limit, "the body")
        try:
            pairs = parse_qsl(
                body.decode(),
                keep_blank_values=True,
                encoding=encoding,
                errors="surrogateescape",
                max_num_fields=self.max_form_parts,
            )
        except ValueError as error:
            raise PayloadTooLarge(f"the form has more than {self.max_form_parts} fields", expected="fewer form fields") from error
        for name, value in pairs:
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise _undecodable(name, encoding)
        return MultiDict(pairs)


def boundary_in(content_type: str) -> str | None:
    """The boundary in a Content-Type; None if it has none.

    Many clients omit the quotes that RFC 2045 requires; the boundary then ends at the next semicolon.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        return None
    quoted, plain = found.groups()
    return str(plain).strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


class _Parser(PushMultipartParser):  # type: ignore[misc] # the library has no types
    """The library's parser with a limit for folded header lines; the library's interface has no such limit."""

    _folded_lines = 0

    def _on_segment_headerline(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):
            self._folded_lines += 1
            if self._folded_lines > _MAX_FOLDED_LINES:
                raise ParserLimitReached(_TOO_MANY_FOLDED_LINES)
        super()._on_segment_headerline(line)


class _Body:
    """Reads a body; keeps, for the error of a malformed form, its length and whether it has a boundary."""

    def __init__(self, stream: IO[bytes], delimiter: bytes) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self.size = 0
        self.first_piece = b""

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.first_piece = self.first_piece or piece
        self.size += len(piece)
        return piece

    @property
    def has_boundary(self) -> bool:
        return self._delimiter in self.first_piece


def _broken_form(error: ParserError, body: _Body, parts: _Parts, boundary: bytes) -> InferenceError:
    shown_boundary = shown(boundary.decode("latin-1"))
    check_no_json(body.first_piece, "multipart/form-data")
    if body.size == 0:
        return InvalidRequest("the body is empty", field=IMAGE, expected=AS_A_FILE)
    if (detail := _BROKEN.get(str(error))) is not None:
        pass
    elif not parts.count and not body.has_boundary:
        detail = f"the boundary that the Content-Type names, {shown_boundary}, is not in the body"
    else:
        detail = f"the body was cut off: it ends after {body.size} bytes, before the last boundary ({shown_boundary})"
    return InvalidRequest(f"the multipart/form-data cannot be read: {detail}", field="body", expected=_EXPECTED_FORM)


class _Parts:
    """Text fields and files, collected from the parser's events."""

    def __init__(self, max_text_bytes: int | None, charset: str | None) -> None:
        self.form: MultiDict[str, str] = MultiDict()
        #: images; and parts with unknown names, without their content
        self.files: MultiDict[str, FileStorage] = MultiDict()
        self.count = 0
        self._max_text_bytes = max_text_bytes
        self._charset = charset
        self._text_bytes = 0
        self._segment: MultipartSegment
        self._name = ""
        self._is_text = False
        self._text: list[bytes] = []
        self._images = Spool()

    def take(self, event: Any) -> None:
        """Process the headers of a part, a piece of its content, or None at its end."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._is_text:
            self._count_text(len(event))
            self._text.append(bytes(event))
        elif self._name == IMAGE:
            self._images.write(bytes(event))

    def close(self) -> None:
        """Release the contents; the traceback of an error may refer to these parts for a long time."""
        self._images.close()
        self.files.clear()

    def _begin(self, segment: MultipartSegment) -> None:
        self.count += 1
        self._segment, self._text = segment, []
        self._images.begin()
        self._name = _name_of(segment)
        _check_content_type(segment)
        self._is_text = self._name in TEXT_FIELDS
        if self._is_text or self._name == IMAGE:
            for header, value in segment.headerlist:
                if header in _ENCODING_HEADERS:
                    _check_unencoded(header, value.strip().lower(), self._name)

    def _count_text(self, size: int) -> None:
        self._text_bytes += size
        if self._max_text_bytes is not None and self._text_bytes > self._max_text_bytes:
            raise _too_much_text(self._max_text_bytes, self._name)

    def _end(self) -> None:
        segment, name = self._segment, self._name
        if self._is_text:
            self.form.add(name, decoded_text(b"".join(self._text), segment.charset or self._charset, name))
        elif name != IMAGE:
            self.files.add(name, FileStorage(BytesIO(), segment.filename, name, segment.content_type))
        else:
            self._end_image(segment, self._images.end())

    def _end_image(self, segment: MultipartSegment, content: IO[bytes]) -> None:
        if not _has_file_name(segment) and segment.content_type in _TEXT_TYPES:
            text = content_of(content)
            if _is_plain_text(text):
                self._count_text(len(text))
                self.files.add(IMAGE, FileStorage(content, None, IMAGE))
                return
        self.files.add(IMAGE, FileStorage(content, "", IMAGE, segment.content_type))


def _name_of(segment: MultipartSegment) -> str:
    """The name in UTF-8, as browsers write it: the headers were read as Latin-1."""
    name = segment.name or ""
    return name if name.isascii() else name.encode("latin-1").decode("utf-8", "replace")


def _has_file_name(segment: MultipartSegment) -> bool:
    """Whether the part has a file name, also in the form of RFC 5987, which the library does not read."""
    return segment.filename is not None or "filename*" in segment.header("Content-Disposition", "").lower()


def _check_content_type(segment: MultipartSegment) -> None:
    """Refuse a folded Content-Type, which no client writes. Raises InvalidRequest."""
    if not (segment.content_type or "").isprintable():
        name = shown_name(_name_of(segment))
        detail = f"the Content-Type of the part {name} has control characters"
        raise InvalidRequest(detail, field=name, expected="a media type on one line, e.g. image/png")


def _check_unencoded(header: str, encoding: str, name: str) -> None:
    """Refuse a part whose bytes are encoded. Raises InvalidRequest, UnsupportedContentEncoding."""
    if encoding in _UNENCODED:
        return
    error = UnsupportedContentEncoding if header == "Content-Encoding" else InvalidRequest
    detail = f"the part {name} has the {header} {shown(encoding)}"
    raise error(detail, field=name, expected=f"the bytes as they are, without a {header}")


def _is_plain_text(content: bytes, *, is_cut: bool = False) -> bool:
    """Whether the content is UTF-8 text; if `is_cut`, the last character may be incomplete."""
    decoder = _UTF8_DECODER()
    try:
        for start in range(0, len(content), _CHECKED_BLOCK_BYTES):
            block = content[start : start + _CHECKED_BLOCK_BYTES]
            if _CONTROL.search(block):
                return False
            decoder.decode(block)
            if start:
                yield_to_other_greenlets()
        decoder.decode(b"", final=not is_cut)
    except UnicodeDecodeError:
        return False
    return True


def decoded_text(content: bytes, charset: str | None, field: str) -> str:
    """Decode text by its charset, by default UTF-8; a byte order mark at the beginning is removed. Raises InvalidRequest."""
    encoding = _encoding(charset, field)
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _undecodable(field, encoding) from error


def _encoding(charset: str | None, field: str) -> str:
    """The name of Python's codec for a charset. Raises InvalidRequest: it is not supported."""
    if not charset:
        return "utf-8"
    try:
        encoding = codecs.lookup(charset).name
    except (LookupError, ValueError):
        encoding = ""
    if encoding not in _ENCODINGS:
        raise InvalidRequest(f"the charset {shown(charset)} is not supported", field=field, expected="UTF-8")
    return encoding


def _undecodable(name: str, encoding: str) -> InvalidRequest:
    return InvalidRequest(
        f"{shown_name(name)} is not text in {encoding.upper()}", field=shown_name(name), expected="text in UTF-8"
    )


def _too_much_text(max_bytes: int, name: str) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the form fields that are not files have more than {max_bytes} bytes together, counted up to {name}"
        " (limits.max_metadata_bytes)",
        field=name,
        expected="image as a file: -F image=@photo.jpg" if name == IMAGE else "shorter form fields",
    )
