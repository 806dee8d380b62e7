"""Arrays of numbers as text in a page: each in the smallest type that loses nothing, compressed.

An array is one byte for its type, one that says whether it holds differences, its length (u32), its
first number (f64), then its bytes, little-endian, the first byte of each number before the second:
so that signs and exponents lie together, which compresses better. `assets/decode.js` reads it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    _Array = np.ndarray[Any, Any]

__all__ = ["encode"]

_HEAD = struct.Struct("<BBId")
#: By their place here the types are known to the page.
_TYPES = ("<u1", "<u2", "<u4", "<f4", "<f8")
_MOST_WHOLE = 2.0**53  # beyond it, not each whole number is a double


def encode(arrays: Iterable[_Array]) -> str:
    """Encode arrays one after another.

    Args:
        arrays: Of one dimension, of any numbers that float64 can hold.

    Returns:
        Base64 of a zlib stream.
    """
    data = b"".join(map(_encode, arrays))
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _encode(array: _Array) -> bytes:
    import numpy as np

    values = np.asarray(array, "f8")
    differences = _as_differences(values)
    if differences is None:
        single = _as_single(values)
        kind, body = (3, single) if single is not None else (4, values)
    else:
        top = int(differences.max(initial=0))
        kind = 0 if top < 1 << 8 else 1 if top < 1 << 16 else 2
        body = differences
    raw = np.ascontiguousarray(body, _TYPES[kind]).view("u1")
    planes = raw.reshape(len(values), -1).T.tobytes() if len(values) else b""
    first = float(values[0]) if differences is not None and len(values) else 0.0
    return _HEAD.pack(kind, differences is not None, len(values), first) + planes


def _as_differences(values: _Array) -> _Array | None:
    """Return the steps between ascending whole numbers, none larger than 32 bits; else None."""
    import numpy as np

    if not np.isfinite(values).all() or (np.abs(values) >= _MOST_WHOLE).any():
        return None
    found = np.diff(values, prepend=values[:1])
    fits = (values == np.floor(values)).all() and ((found >= 0) & (found < 2.0**32)).all()
    negative_zero = ((values == 0) & np.signbit(values)).any()
    return found if fits and not negative_zero else None


def _as_single(values: _Array) -> _Array | None:
    """Return float32 if each number is one, as what comes from a model mostly is."""
    import numpy as np

    with np.errstate(over="ignore", under="ignore"):
        single = values.astype("f4")
    same = (single == values) | (np.isnan(single) & np.isnan(values))
    return single if same.all() else None
