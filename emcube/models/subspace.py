"""Leading components without a Gram matrix: a block Krylov space, grown by one pass over the data a round.

Letters: P pixels, E used channels, K components, L vectors of a round, M of the space. X is the weighted
matrix, C = X'X, Q an orthonormal basis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh, qr

from emcube.engine.threads import single_threaded_blas
from emcube.kernels.products import there_and_back
from emcube.kernels.rows import CountRows
from emcube.kernels.slabs import cell_totals
from emcube.models.labels import require_finite_counts, require_finite_values
from emcube.models.noise import NoiseModel, weighs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from emcube.engine import Block, RngKey

__all__ = ["SketchSweep", "Space", "Subspace", "SubspaceSweep", "angle_bounds"]
__all__ += ["leading_vectors", "new_directions", "separated"]

SEPARATION = 0.1
"""Components k and k + 1 are told apart where their eigenvalues differ by this share of the larger one."""

RESOLUTION = 1e-8
"""Eigenvalues below this share of the first are rounding, and nothing is asked of their vectors."""

KRYLOV_CHANNELS = 1024
"""From so many channels on a few eigenvectors are found faster by products than by a reduction."""

MAX_SPACE_BYTES = 512 << 20
"""Basis and images together; a larger space is cut down to its leading vectors, which costs no pass."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """Sums over pixels with which the solver starts; they add.

    Attributes
    ----------
    sums : ndarray of float64, shape (E,)
        sum_i x_i.
    n_pixels : int
    image : ndarray of float64, shape (E, L)
        sum_i w_i x_i x_i'B; where the data are centred, of the pixels less their mean.
    """

    sums: NDArray[np.float64]
    n_pixels: int
    image: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SketchSweep:
    """First pass: channel totals, which the scaling needs, and a first product with random vectors.

    The scaling of the channels is not known yet, but X'X B' with the scaled matrix X and B' = B / scale is
    what comes out once the image is scaled: any start will do.
    """

    noise: NoiseModel
    vectors: NDArray[np.float64]
    name: str = "PCA (first pass)"

    def start(self) -> None:
        """Nothing is known before the first block."""
        return

    def map(self, block: Block, state: Any, rng_key: RngKey) -> Sketch:
        """Sums of one block; a centred one about its own mean."""
        if self.noise.needs_counts:
            require_finite_counts(block)
        else:
            require_finite_values(block)
        data = block.data
        if isinstance(data, CountRows):
            sums = data.channel_totals().astype(np.float64)
        else:
            sums, *_ = cell_totals(data)
        shift = sums / max(1, block.n_pixels) if self.noise.centred else None
        found = there_and_back(data, self.vectors, _weigh(self.noise), shift)
        return Sketch(sums, block.n_pixels, found.image)

    def combine(self, a: Sketch, b: Sketch) -> Sketch:
        """Add; pixels of a centred block lie off the common mean together."""
        image = a.image + b.image
        n = a.n_pixels + b.n_pixels
        if self.noise.centred and a.n_pixels and b.n_pixels:
            off = b.sums / b.n_pixels - a.sums / a.n_pixels
            image += (a.n_pixels * b.n_pixels / n) * np.outer(off, off @ self.vectors)
        return Sketch(a.sums + b.sums, n, image)

    def step(self, state: Any, statistic: Sketch, round_number: int) -> tuple[Sketch, bool]:
        """One round is all."""
        return statistic, True

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return self.vectors.nbytes + 8 * n_channels


@dataclass(frozen=True, eq=False)
class Space:
    """What is known of C: an orthonormal basis and what C makes of it, in the parts that it grew by.

    Attributes
    ----------
    basis, images : tuple of ndarray of float64, shape (E, L)
        Q and C Q, M columns together.
    inner : ndarray of float64, shape (M, M)
        Q'C Q.
    """

    basis: tuple[NDArray[np.float64], ...] = ()
    images: tuple[NDArray[np.float64], ...] = ()
    inner: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    def grown(self, front: NDArray[np.float64], image: NDArray[np.float64]) -> Space:
        """Space with further vectors (E, L), orthonormal to it, and their images."""
        across = np.concatenate([np.zeros((0, front.shape[1])), *(q.T @ image for q in self.basis)])
        own = front.T @ image
        inner = np.block([[self.inner, across], [across.T, 0.5 * (own + own.T)]])
        return Space((*self.basis, front), (*self.images, image), inner)

    def images_of(self, turn: NDArray[np.float64]) -> NDArray[np.float64]:
        """What C makes of vectors (E, R) of the space, those that `turn` (M, R) makes of the basis."""
        return _times(self.images, turn)

    def turned(self, turn: NDArray[np.float64], values: NDArray[np.float64]) -> Space:
        """Space of some Ritz vectors: those that `turn` (M, R) makes of the basis."""
        return Space((_times(self.basis, turn),), (_times(self.images, turn),), np.diag(values))


def _times(
    parts: tuple[NDArray[np.float64], ...], turn: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Product of parts (E, L), side by side, and a matrix (M, R)."""
    out = np.zeros((parts[0].shape[0], turn.shape[1]))
    column = 0
    for part in parts:
        out += part @ turn[column : column + part.shape[1]]
        column += part.shape[1]
    return out


@dataclass(frozen=True, eq=False)
class Subspace:
    """State of the solver.

    Attributes
    ----------
    front : ndarray of float64, shape (E, L)
        What the next round multiplies. Workers get nothing else.
    space : Space or None
    eigenvalues : ndarray of float64, shape (K,)
    vectors : ndarray of float64, shape (E, K)
    angles : ndarray of float64, shape (K,)
        See `angle_bounds`.
    energy : float
        trace C.
    """

    front: NDArray[np.float64]
    space: Space | None
    eigenvalues: NDArray[np.float64]
    vectors: NDArray[np.float64]
    angles: NDArray[np.float64]
    energy: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        nothing = np.zeros(0)
        return {
            "front": self.front,
            "space": None,
            "eigenvalues": nothing,
            "vectors": nothing,
            "angles": nothing,
            "energy": 0.0,
        }


@dataclass(frozen=True, eq=False)
class SubspaceSweep:
    """Block Krylov iteration: each round multiplies the newest vectors of a space by C = X'X.

    Values and vectors are those of C within all of the space (Rayleigh-Ritz). It ends when every k where the
    components are told apart has its first k components within `tol` degrees.

    Parameters
    ----------
    noise : NoiseModel
    scale : ndarray of float64, shape (E,)
        Factor of each channel.
    mean : ndarray of float64, shape (E,), optional
        Subtracted from each pixel.
    known : ndarray of float64, shape (E,), optional
        An eigenvector of C that is known, of length one; it is left out.
    first : ndarray of float64, shape (E, L)
        Orthonormal vectors, at right angles to the known one.
    n_components : int
        K, without the known one.
    tol : float
        Degrees.
    n_dims : int
        Dimensions that X has at most, without the known one.
    max_rounds : int
        Rounds that will be made at most.
    """

    noise: NoiseModel
    scale: NDArray[np.float64]
    mean: NDArray[np.float64] | None
    known: NDArray[np.float64] | None
    first: NDArray[np.float64]
    n_components: int
    tol: float
    n_dims: int
    max_rounds: int
    name: str = "PCA (randomized)"

    def start(self) -> Subspace:
        """Space of nothing."""
        k = self.n_components
        empty = np.zeros((self.first.shape[0], k))
        return Subspace(self.first, None, np.zeros(k), empty, np.full(k, 90.0))

    def map(
        self, block: Block, state: Subspace, rng_key: RngKey
    ) -> tuple[NDArray[np.float64], float]:
        """C F of one block, and in the first round trace C."""
        first_round = rng_key[1] == 0
        found = there_and_back(
            block.data,
            self.scale[:, None] * state.front,
            _weigh(self.noise),
            self.mean,
            np.square(self.scale) if first_round else None,
        )
        return self.scale[:, None] * found.image, found.energy

    def combine(
        self, a: tuple[NDArray[np.float64], float], b: tuple[NDArray[np.float64], float]
    ) -> tuple[NDArray[np.float64], float]:
        """Add."""
        return a[0] + b[0], a[1] + b[1]

    def step(
        self, state: Subspace, statistic: tuple[NDArray[np.float64], float], round_number: int
    ) -> tuple[Subspace, bool]:
        """Values and vectors within the grown space, and the vectors of the next round."""
        image, energy = statistic
        if self.known is not None:
            # C without its known part: that maps onto the known vector alone.
            image = image - np.outer(self.known, self.known @ image)
        space = (state.space or Space()).grown(state.front, image)
        values, turn = np.linalg.eigh(space.inner)
        values, turn = values[::-1], turn[:, ::-1]
        width = values.size
        k = min(self.n_components, width)
        checked = min(k + 1, width)
        vectors = _times(space.basis, turn[:, :checked])
        residuals = _times(space.images, turn[:, :checked]) - vectors * values[:checked]
        lengths = np.sqrt(np.square(residuals).sum(axis=0))
        known = () if self.known is None else (self.known[:, None],)
        front = new_directions(image, (*known, *space.basis), self.n_dims - width)
        complete = front.shape[1] == 0
        angles = angle_bounds(values[:checked], lengths, k, complete=complete)
        done = complete or (
            k == self.n_components
            and bool(((angles <= self.tol) | ~separated(values[:checked], lengths, k)).all())
        )
        most = MAX_SPACE_BYTES // (16 * image.shape[0])
        n_kept = max(self.n_components + 1, 2 * self.first.shape[1])
        if width + self.first.shape[1] > max(most, n_kept + self.first.shape[1]):
            space = space.turned(turn[:, :n_kept], values[:n_kept])
        answer = Subspace(
            front,
            space,
            _padded(values[:k], self.n_components),
            _padded(vectors[:, :k], self.n_components),
            _padded(angles, self.n_components),
            state.energy + energy,
        )
        return answer, done

    def statistic_bytes(self, n_channels: int) -> int:
        """Bytes of a statistic."""
        return self.first.nbytes

    def state_bytes(self, n_channels: int) -> int:
        """Bytes of the space, as large as it may become, and of a copy while it grows."""
        n_kept = max(self.n_components + 1, 2 * self.first.shape[1])
        width = self.first.shape[1]
        most = max(MAX_SPACE_BYTES // (16 * n_channels), n_kept + width)
        return int(2 * 16 * n_channels * min(most, self.max_rounds * width, self.n_dims))


def angle_bounds(
    values: NDArray[np.float64], residuals: NDArray[np.float64], k: int, *, complete: bool = False
) -> NDArray[np.float64]:
    """Bound the largest angle between the span of the first j Ritz vectors and the exact one, for j = 1..k.

    Parameters
    ----------
    values, residuals : ndarray of float64, shape (K,) or (K + 1,)
        Ritz values, descending, and the lengths of C v - value v.
    k : int
        K.
    complete : bool
        The space is all there is: what follows the last value is nothing.

    Returns
    -------
    ndarray of float64, shape (k,)
        Degrees; 90 where the residuals do not tell component j from the next.

    Notes
    -----
    Davis and Kahan: the part of Ritz vector i outside the span of the exact first j is at most its residual
    over the distance from value i to the exact eigenvalue j + 1. That one is taken to be at most its Ritz
    value and residual, which a random start makes all but certain.

    References
    ----------
    C. Davis, W. M. Kahan, SIAM J. Numer. Anal. 7 (1970) 1. https://doi.org/10.1137/0707001
    """
    angles = np.full(k, 90.0)
    for j in range(1, k + 1):
        if j < values.size:
            edge = values[j] + residuals[j]
        elif complete:
            edge = 0.0
        else:
            continue
        distances = values[:j] - edge
        if distances[-1] > 0:
            sine = np.sqrt(np.square(residuals[:j] / distances).sum())
            angles[j - 1] = np.rad2deg(np.arcsin(min(1.0, float(sine))))
    return angles


def separated(
    values: NDArray[np.float64], residuals: NDArray[np.float64], k: int
) -> NDArray[np.bool_]:
    """Whether component j and the next are told apart, or may yet be once they are better known; j = 1..k.

    Values and residuals as in `angle_bounds`.
    """
    following = np.append(values, 0.0)[1 : k + 1]
    highest = values[:k] + residuals[:k]
    wide = highest - following > SEPARATION * highest
    return np.asarray(wide & (highest > RESOLUTION * values[0]))


def _weigh(noise: NoiseModel) -> Callable[[NDArray[Any]], NDArray[np.float64] | None] | None:
    """The model's weights, or None where every pixel weighs one and no totals are needed."""
    return noise.pixel_weights if weighs(noise) else None


def _padded(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Values with zeros behind, up to k in the last dim."""
    missing = k - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def new_directions(
    image: NDArray[np.float64],
    against: NDArray[np.float64] | tuple[NDArray[np.float64], ...],
    room: int,
) -> NDArray[np.float64]:
    """Orthonormal directions, `room` at most, of an image (E, L) that other vectors lack."""
    parts = against if isinstance(against, tuple) else (against,)
    size = np.sqrt(np.square(image).sum(axis=0).max(initial=0.0))
    front = image
    for _ in range(2):  # once is not enough where little is new
        new = front.copy()
        for part in parts:
            new -= part @ (part.T @ front)
        front = new
        front, upper, _ = qr(front, mode="economic", pivoting=True)
        found = np.abs(np.diagonal(upper)) > 1e-13 * size
        front = front[:, : max(0, min(room, int(np.count_nonzero(found))))]
        size = 1.0
    return np.asarray(front)


def leading_vectors(matrix: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Eigenvectors (n, k) of the k largest eigenvalues of a symmetric matrix, in descending order.

    Large matrices are multiplied with a growing block Krylov space; where it does not find the vectors
    to rounding soon, and for small ones, the matrix is reduced to a tridiagonal one.
    """
    n = len(matrix)
    with single_threaded_blas():
        vectors = _krylov_vectors(matrix, k) if n >= KRYLOV_CHANNELS else None
        if vectors is None:
            vectors = eigh(matrix, subset_by_index=(n - k, n - 1))[1]
    return np.asarray(vectors[:, ::-1])


def _krylov_vectors(matrix: NDArray[np.float64], k: int) -> NDArray[np.float64] | None:
    """The k eigenvectors in ascending order, or None where an eighth of all dimensions does not do."""
    n = len(matrix)
    basis = images = np.zeros((n, 0))
    front = new_directions(np.random.default_rng(0).standard_normal((n, k + 3)), basis, n)
    while front.shape[1] and basis.shape[1] + front.shape[1] <= n // 8:
        for _ in range(4):
            image = matrix @ front
            basis, images = np.column_stack([basis, front]), np.column_stack([images, image])
            front = new_directions(image, basis, n)
            if not front.shape[1]:
                break
        inner = basis.T @ images
        values, turn = eigh(0.5 * (inner + inner.T))
        values, vectors = values[-k:], basis @ turn[:, -k:]
        left = np.linalg.norm(images @ turn[:, -k:] - vectors * values, axis=0)
        if vectors.shape[1] == k and left.max() <= 1e-12 * values[-1]:
            return np.asarray(vectors)
    return None
