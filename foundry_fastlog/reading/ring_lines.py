"""The lines of records in a ring: the text that the recorder itself would have written.

Byte for byte what ``csrc/core/line_renderer.cpp`` and ``json_writer.cpp`` make of the
same record, so that a line read from a ring and the one that recovery writes are one.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from datetime import datetime, timedelta

from foundry_fastlog.reading.ring_image import DROPS, FRAGMENT, METRICS, TIMING, Record, RingImage
from foundry_fastlog.reading.ring_keys import KeySet, string_text
from foundry_fastlog.run.files import STREAMS

__all__ = ["LineRenderer", "double_text"]

_UINT64 = 1 << 64
_INT64 = 1 << 63
_CENTURY = 3.2e18  # nanoseconds; a damaged tick must not lead further away
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # UTC throughout; the text has the Z

_METRICS = struct.Struct("<qI2H")
_TIMING = struct.Struct("<qQ2I2HI")
_SUMMARY, _REAL_EPOCH = 1, 2  # flags of metrics
_HAS_STEP, _HAS_PARENT, _HAS_DEVICE, _DEVICE_MISSING = 1, 2, 4, 8
_NULL, _BOOLEAN, _INTEGER, _REAL, _STRING, _PENDING, _MISSING = range(7)

# Kinds of devices, and why a value is missing, by number.
_DEVICES = (b"cuda", b"cuda", b"xpu", b"mps", b"device")
_LOST = b"lost"
_REASONS = (
    *(_LOST, b"timeout", b"no_slot", b"driver_error_", b"forked"),
    *(b"no_room", b"no_key_space", b"backend_error", b"masked"),
    *(b"other_context", b"unordered", b"capture"),
)
_DRIVER_ERROR = 3
_REASON_WORD = struct.Struct("<Q")

_CONTROL = re.compile(rb"[\x00-\x1f]")


def double_text(value: float) -> bytes:
    """Write a float with the fewest characters that read back as the same double.

    Like ``std::to_chars``, which takes the shorter of the forms of ``%f`` and ``%e``, but
    always with ``.`` or ``e``; null for NaN and infinities.
    """
    text = repr(value)
    if 1e-3 <= abs(value) < 1e16 and text[-2:] != ".0":
        return text.encode()  # here repr() takes the shorter form too
    if not math.isfinite(value):
        return b"null"
    mantissa, _, exponent = text.partition("e")
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction.rstrip("0")).lstrip("0")
    power = int(exponent or 0) - len(fraction.rstrip("0"))
    power += len(digits) - len(digits := digits.rstrip("0"))
    if not digits:
        return f"{sign}0.0".encode()
    single = len(digits) == 1  # without a point in its form of %e
    if power >= 0:
        if power <= (4 if single else 5):
            return f"{sign}{int(abs(value))}.0".encode()
    elif power >= -len(digits) - (2 if single else 3):
        places = digits.rjust(1 - power, "0")
        return f"{sign}{places[:power]}.{places[power:]}".encode()
    power += len(digits) - 1
    point = "" if single else "."
    return (
        f"{sign}{digits[0]}{point}{digits[1:]}e{'-' if power < 0 else '+'}{abs(power):02d}".encode()
    )


def _rounded(value: float) -> float:
    """Round to a whole number, halves away from zero, as C does; the sign of zero stays."""
    if not math.isfinite(value):
        return value
    whole = math.trunc(value)
    if abs(value - whole) >= 0.5:
        whole += 1 if value > 0 else -1
    return math.copysign(whole, value)


def _nonfinite(value: float) -> bytes:
    if math.isnan(value):
        return b"nan"
    return b"inf" if value > 0 else b"-inf"


def _reason(word: int) -> bytes | None:
    """Say why a value was given up; None for a reason that there is not."""
    code = word & 0xFF
    if code >= len(_REASONS):
        return None
    number = b"%d" % (word >> 16 & 0xFFFFFFFF) if code == _DRIVER_ERROR else b""
    return _REASONS[code] + number


class LineRenderer:
    """Renders the records of a ring.

    Args:
        image: The ring.
    """

    def __init__(self, image: RingImage) -> None:
        self._key_sets = image.key_sets
        self._tsc = image.header.tsc
        self._anchor_ticks = image.slot.anchor_ticks
        self._anchor_wall_ns = image.slot.anchor_wall_ns
        self._ns_per_tick = image.slot.ns_per_tick if self._tsc else 1.0
        self._second = -_INT64 * 2  # none
        self._second_text = b""
        self._kinds: dict[int, Callable[[Record], bytes | None]] = {
            METRICS: self._metrics,
            TIMING: self._timing,
            FRAGMENT: self._fragment,
            DROPS: self._drops,
        }

    def members(self, record: Record) -> bytes | None:
        """Render a record's fields behind ``seq``, with the closing brace and the newline.

        Returns:
            None for a record in which an offset, a length or a number is out of bounds.
        """
        render = self._kinds.get(record.kind)
        if render is None or record.stream >= len(STREAMS):
            return None
        members = render(record)
        return None if members is None else members + b"}\n"

    def opening(self, ticks: int, seq: int) -> bytes:
        """Render a line's beginning: time of the call, and number in its stream."""
        second, ns = divmod(self._wall_ns(ticks), 1_000_000_000)
        if second != self._second:
            moment = _EPOCH + timedelta(seconds=second)
            self._second = second
            self._second_text = moment.isoformat().encode()
        return b'{"timestamp":"%b.%06dZ","seq":%d,' % (self._second_text, ns // 1000, seq)

    def _wall_ns(self, ticks: int) -> int:
        if not self._tsc:
            return _signed(ticks)
        ns = _signed(ticks - self._anchor_ticks) * self._ns_per_tick
        if not abs(ns) < _CENTURY:
            return self._anchor_wall_ns
        return _signed(self._anchor_wall_ns + int(_rounded(ns)))

    def _keys(self, number: int) -> KeySet | None:
        return self._key_sets[number] if number < len(self._key_sets) else None

    def _name(self, number: int) -> bytes | None:
        """The first key of a set, without its colon."""
        found = self._keys(number)
        return found.keys[0][:-1] if found and found.keys else None

    def _metrics(self, record: Record) -> bytes | None:
        payload = record.payload
        if len(payload) < _METRICS.size:
            return None
        step, number, count, flags = _METRICS.unpack_from(payload)
        values_at = _METRICS.size + (count + 7 & -8)
        strings_at = values_at + 8 * count
        key_set = self._keys(number)
        if len(payload) < strings_at or key_set is None or len(key_set.keys) != count:
            return None
        tags = bytes(payload[_METRICS.size : _METRICS.size + count])
        raw = payload[values_at:strings_at]
        words = raw.cast("Q")
        reals = raw.cast("d")
        strings = bytes(payload[strings_at:])
        used = 0
        texts: list[bytes] = []
        nonfinite: list[bytes] = []
        missing: list[bytes] = []
        epoch = b""
        epoch_at = -1 if flags & _SUMMARY else key_set.epoch
        for index, (tag, key) in enumerate(zip(tags, key_set.keys, strict=True)):
            if tag == _REAL:
                value = reals[index]
                text = double_text(value)
                if text == b"null":
                    name = b'%b"%b"' % (key, _nonfinite(value))
                    # The epoch is named first, as it stands before the metrics.
                    nonfinite.insert(0 if index == epoch_at else len(nonfinite), name)
            elif tag == _INTEGER:
                text = b"%d" % _signed(words[index])
            elif tag == _NULL:
                text = b"null"
            elif tag == _BOOLEAN:
                text = b"true" if words[index] else b"false"
            elif tag == _STRING:
                begin, length = words[index] >> 32, words[index] & 0xFFFFFFFF
                used += length  # texts do not overlap, so a line is no multiple of its record
                if max(begin + length, used) > len(strings):
                    return None
                text = string_text(strings[begin : begin + length])
            elif tag in (_PENDING, _MISSING) and index != epoch_at:
                # What a process waited for when it died never comes.
                reason = _LOST if tag == _PENDING else _reason(words[index])
                if reason is None:
                    return None
                text = b"null"
                missing.append(b'%b"%b"' % (key, reason))
            else:
                return None
            if index != epoch_at:
                texts.append(key + text)
            elif tag != _NULL:
                epoch = b',"epoch":' + text
        if flags & _SUMMARY:
            real = struct.unpack("<d", struct.pack("<q", step))[0] if flags & _REAL_EPOCH else 0.0
            epoch = double_text(real) if flags & _REAL_EPOCH else b"%d" % step
            if epoch == b"null":
                nonfinite.insert(0, b'"epoch":"%b"' % _nonfinite(real))
            members = b'"epoch":%b,"summary":{%b}' % (epoch, b",".join(texts))
        else:
            members = b'"step":%d%b,"metrics":{%b}' % (step, epoch, b",".join(texts))
        if nonfinite:
            members += b',"nonfinite":{%b}' % b",".join(nonfinite)
        if missing:
            members += b',"missing":{%b}' % b",".join(missing)
        return members

    def _timing(self, record: Record) -> bytes | None:
        payload = record.payload
        if len(payload) < _TIMING.size:
            return None
        step, ticks, number, parent_number, depth, flags, error_length = _TIMING.unpack_from(
            payload
        )
        name = self._name(number)
        parent = self._name(parent_number) if flags & _HAS_PARENT else b""
        error_end = _TIMING.size + error_length
        device = _device(flags, payload[error_end:])
        if name is None or parent is None or len(payload) < error_end or device is None:
            return None
        duration = double_text(_rounded(ticks * self._ns_per_tick) / 1e9)
        parts = [b'"name":%b,"duration_s":%b' % (name, duration)]
        if flags & _HAS_STEP:
            parts.append(b'"step":%d' % step)
        parts.append(b'"depth":%d' % depth)
        if parent:
            parts.append(b'"parent":' + parent)
        parts.append(b'"thread":%d' % record.thread)
        if error_length:
            parts.append(b'"error":' + string_text(bytes(payload[_TIMING.size : error_end])))
        return b",".join(parts) + device

    def _fragment(self, record: Record) -> bytes | None:
        """JSON text as it is; it never holds a control character, so it is one line."""
        members = bytes(record.payload)
        return None if not members or _CONTROL.search(members) else members

    def _drops(self, record: Record) -> bytes | None:
        if len(record.payload) != 8:
            return None
        return dropped_members(*struct.unpack("<Q", record.payload))


def _device(flags: int, rest: memoryview) -> bytes | None:
    """Render the members of a block's device; its duration never arrived.

    Args:
        flags: Of the timing.
        rest: What follows the name of its error: why the duration was given up at once.
    """
    given_up = flags & _DEVICE_MISSING
    if len(rest) != (_REASON_WORD.size if given_up else 0):
        return None
    if not flags & _HAS_DEVICE:
        return None if given_up else b""
    reason = _reason(*_REASON_WORD.unpack(rest)) if given_up else _LOST
    kind = flags >> 4 & 0xF
    if reason is None or kind >= len(_DEVICES):
        return None
    return b',"device":"%b:%d","device_duration_s":null,"missing":{"device_duration_s":"%b"}' % (
        _DEVICES[kind],
        flags >> 8,
        reason,
    )


def dropped_members(count: int) -> bytes:
    """Render the one field of a drop marker."""
    return b'"dropped":%d' % count


def _signed(word: int) -> int:
    """Read the low 64 bits as a signed number."""
    return (word + _INT64) % _UINT64 - _INT64
