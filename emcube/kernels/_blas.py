"""A BLAS routine called without the interpreter's lock, so that threads overlap.

SciPy's Python wrappers of BLAS hold the lock while they compute: two threads would take turns. NumPy's
product releases it, but cannot add to a matrix and fills both triangles.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from scipy.linalg import cython_blas

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["add_outer_products"]


def _routine(name: str, n_arguments: int) -> ctypes._CFuncPtr:
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
