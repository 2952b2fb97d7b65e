"""BLAS routines called without the interpreter's lock, so that threads overlap.

SciPy's Python wrappers of BLAS hold the lock while they compute: two threads would take turns. NumPy's
product releases it, but cannot add to a matrix and fills both triangles.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from scipy.linalg import cython_blas

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["add_outer_products", "add_product"]


def _routine(name: str, n_arguments: int) -> Callable[..., None]:
    """Routine of SciPy's BLAS as a C function of pointers; a call by ctypes releases the lock."""
    capsule = cython_blas.__pyx_capi__[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = get_pointer(capsule, get_name(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address)


_dsyrk = _routine("dsyrk", 10)
_LOWER, _NO_TRANSPOSE = ctypes.c_char(b"L"), ctypes.c_char(b"N")
_ONE = ctypes.c_double(1.0)


def add_outer_products(rows: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Add X'X to the upper triangle of a matrix, in place.

    Parameters
    ----------
    rows : ndarray of float64, shape (P, E), C-contiguous
        X.
    out : ndarray of float64, shape (E, E), C-contiguous
        What lies below the diagonal is left as it is.
    """
    n_rows, n = rows.shape
    if out.shape != (n, n) or not (rows.flags.c_contiguous and out.flags.carray):
        raise ValueError(
            f"rows {rows.shape} and a writable matrix {(n, n)} in C order are expected"
        )
    if rows.dtype != "f8" or out.dtype != "f8":
        raise ValueError(f"float64 is expected, got {rows.dtype} and {out.dtype}")
    if not n_rows or not n:
        return
    # BLAS is column-major: it sees X' of shape (E, P), and the lower triangle of its view is ours above.
    size, depth = ctypes.c_int(n), ctypes.c_int(n_rows)
    by = ctypes.byref
    _dsyrk(
        *(by(_LOWER), by(_NO_TRANSPOSE), by(size), by(depth), by(_ONE), rows.ctypes.data),
        *(by(size), by(_ONE), out.ctypes.data, by(size)),
    )


_gemm = {
    "f4": (_routine("sgemm", 13), ctypes.c_float(1.0)),
    "f8": (_routine("dgemm", 13), ctypes.c_double(1.0)),
}
_TRANSPOSE = ctypes.c_char(b"T")


def add_product(rows: NDArray[Any], columns: NDArray[Any], out: NDArray[Any]) -> None:
    """Add X'Y to a matrix, in place.

    Parameters
    ----------
    rows : ndarray of float32 or float64, shape (P, E), C-contiguous
        X.
    columns : ndarray of the same dtype, shape (P, L), C-contiguous
        Y.
    out : ndarray of the same dtype, shape (E, L), C-contiguous
    """
    (depth, n), (also, width) = rows.shape, columns.shape
    kind = rows.dtype.str[1:]
    if kind not in _gemm or columns.dtype != rows.dtype or out.dtype != rows.dtype:
        raise ValueError(
            f"float32 or float64 throughout is expected, got {rows.dtype}, {columns.dtype}, {out.dtype}"
        )
    in_order = rows.flags.c_contiguous and columns.flags.c_contiguous and out.flags.carray
    if also != depth or out.shape != (n, width) or not in_order:
        raise ValueError(
            f"matrices (P, E), (P, L) and (E, L) in C order are expected, got {rows.shape}, "
            f"{columns.shape} and {out.shape}"
        )
    if not depth or not n or not width:
        return
    # Column-major again: out' (L, E) = Y' (L, P) times X (P, E), which lies there as X' and is transposed.
    routine, one = _gemm[kind]
    by = ctypes.byref
    m, k, e = ctypes.c_int(width), ctypes.c_int(depth), ctypes.c_int(n)
    routine(
        *(by(_NO_TRANSPOSE), by(_TRANSPOSE), by(m), by(e), by(k), by(one)),
        *(columns.ctypes.data, by(m), rows.ctypes.data, by(e), by(one), out.ctypes.data, by(m)),
    )
