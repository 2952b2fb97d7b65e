"""What a recipe may say: one frozen model a verb.

The parameters of a step are the constructor parameters of its estimator (a test holds the two
together), so that a recipe is refused before anything is read and without importing the numerical
libraries. Defaults are the same but for `n_components` and `n_clusters`, which come from an estimate
(PCA: 20), and seeds that need not be drawn.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    StringConstraints,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

__all__ = [
    "ESTIMATES",
    "FORMAT",
    "WITH_LOADINGS",
    "WITH_PHASES",
    "WITH_SPECTRA",
    "AnyPrepare",
    "AnyStep",
    "BayesianUnmixingStep",
    "Bin",
    "ClusterQualityStep",
    "DiagnosticsStep",
    "EstimateStep",
    "FieldInput",
    "GaussianMixtureStep",
    "ICAStep",
    "Input",
    "KMeansStep",
    "MCRStep",
    "NFINDRStep",
    "NMFStep",
    "PCAStep",
    "PhaseFractionsStep",
    "PoissonMixtureStep",
    "PrepareStep",
    "RecipeModel",
    "RemoveBackground",
    "SISALStep",
    "Select",
    "SpectraOf",
    "Step",
    "SurveyStep",
    "UncertaintyStep",
    "VCAStep",
    "VarimaxStep",
    "Where",
    "Window",
    "XrayBasis",
]

FORMAT = 1
"""Version of the recipe format that this release reads and writes."""

RESERVED_NAMES = ("input", "fields")
"""Names a step cannot have: nodes of the result tree that hold something else."""


NOT_A_MAPPING = ""
"""Key under which parameters that are no mapping reach their model, which refuses them."""


class _Model(BaseModel):
    """Frozen, nothing unknown, nothing converted behind the user's back."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict) and NOT_A_MAPPING in value:
            raise PydanticCustomError("not_mapping", "parameters are not a mapping")
        return value


Number = Annotated[float, Strict()]
Finite = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1)]
Seed = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
Interval = Annotated[tuple[Finite, Finite], Strict(False)]
Positions = Annotated[
    tuple[Annotated[int, Strict(), Field(ge=0)], Annotated[int, Strict(), Field(ge=1)]],
    Strict(False),
]
Vertex = Annotated[tuple[Finite, Finite], Strict(False)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_\-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1)]


def _increasing(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise PydanticCustomError(
            "interval",
            "the interval starts at {low} and ends at {high}, expected the lower end first",
            {"low": f"{value[0]:g}", "high": f"{value[1]:g}"},
        )
    return value


# --------------------------------------------------------------------------- input and selection


class FieldInput(_Model):
    """One of several cubes: a path or an entry of a catalog, and what the field is called."""

    path: Text | None = None
    name: Text | None = None
    catalog: Text | None = None
    dataset: Text | None = None
    field: Name | None = None

    @model_validator(mode="after")
    def _one_source(self) -> FieldInput:
        _require_one_source(self)
        return self


def _paths(value: Any) -> Any:
    """Turn ``[a.zarr, b.zarr]`` into ``[{path: a.zarr}, {path: b.zarr}]``."""
    if not isinstance(value, list):
        return value
    return [{"path": one} if isinstance(one, str) else one for one in value]


class Input(_Model):
    """Where the cube comes from: a path (or several that are joined), or an entry of a catalog.

    Or where several cubes come from, which are fitted together and stay apart: `fields`, or what a `search`
    in a catalog finds.
    """

    fields: (
        Annotated[
            tuple[FieldInput, ...], Strict(False), BeforeValidator(_paths), Field(min_length=1)
        ]
        | None
    ) = None
    search: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    path: Text | Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)] | None = None
    name: Text | None = None
    dim: Name | None = None
    values: Annotated[tuple[Finite, ...], Strict(False), Field(min_length=1)] | None = None
    catalog: Text | None = None
    dataset: Text | None = None

    @property
    def several(self) -> bool:
        """Whether it names several cubes that stay apart."""
        return self.fields is not None or self.search is not None

    @model_validator(mode="after")
    def _one_source(self) -> Input:
        if self.several:
            return self._several_sources()
        _require_one_source(self)
        several = isinstance(self.path, tuple)
        if (self.dim is not None or self.values is not None) and not several:
            raise PydanticCustomError(
                "input_source",
                "'dim' and 'values' join several files, expected 'path' to be a list of files",
            )
        if several and self.values is not None and len(self.values) != len(self.path or ()):
            raise PydanticCustomError(
                "input_source",
                "{n} values for {m} files, expected one each",
                {"n": len(self.values), "m": len(self.path or ())},
            )
        return self

    def _several_sources(self) -> Input:
        given = {k for k, v in self if v is not None}
        expected = {"fields"} if self.fields is not None else {"catalog", "search"}
        if given != expected:
            raise PydanticCustomError(
                "input_source",
                "several cubes are named by 'fields' alone, or by 'catalog' and 'search', got {got}",
                {"got": ", ".join(map(repr, sorted(given)))},
            )
        names = [one.field for one in self.fields or () if one.field is not None]
        if len({name.casefold() for name in names}) < len(names):
            raise PydanticCustomError("input_source", "two of the 'fields' have one name")
        return self


def _require_one_source(given: FieldInput | Input) -> None:
    """Refuse an input that names no cube, or two."""
    if (given.path is None) == (given.catalog is None):
        raise PydanticCustomError(
            "input_source",
            "expected either 'path' or 'catalog' and 'dataset', got {got}",
            {"got": "both" if given.path is not None else "neither"},
        )
    if (given.catalog is None) != (given.dataset is None):
        raise PydanticCustomError(
            "input_source", "'catalog' and 'dataset' belong together, got only one of them"
        )
    if given.catalog is not None and given.name is not None:
        raise PydanticCustomError(
            "input_source", "'name' picks a signal in a file, a catalog entry has its own"
        )


class Where(_Model):
    """Which pixels are used: those whose counts, smoothed over neighbours, reach a level."""

    min_smoothed_counts: Positive
    sigma: Positive = 1.5


# ------------------------------------------------------------------------------------ preparation


class _Prepare(_Model):
    """One step of the preparation: keyed by dims, so that any key may come."""

    verb: ClassVar[str]
    _example: ClassVar[str] = "energy: [1.0, 9.5]"
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, hide_input_in_errors=True)

    @property
    def dims(self) -> dict[str, Any]:
        """What was given for each dim."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _some_dim(self) -> _Prepare:
        polygons = (getattr(self, part, None) for part in ("region", "outside"))
        if not self.dims and all(polygon is None for polygon in polygons):
            raise PydanticCustomError(
                "no_dims", f"nothing is asked for, expected a dim, as in {{{self._example}}}"
            )
        return self


class RemoveBackground(_Prepare):
    """Fit a power law in a window before the edge and subtract it (`cube.em.remove_background`)."""

    verb: Literal["remove_background"] = "remove_background"  # type: ignore[misc]
    __pydantic_extra__: dict[str, Interval]

    @model_validator(mode="after")
    def _one_window(self) -> RemoveBackground:
        if len(self.dims) != 1:
            raise PydanticCustomError(
                "one_window",
                "got windows on {n} dims, expected one, the signal dim",
                {"n": len(self.dims)},
            )
        _increasing(next(iter(self.dims.values())))
        return self


class Window(_Prepare):
    """Keep a range of a signal dim, ends included, in the dim's units (`cube.em.window`)."""

    verb: Literal["window"] = "window"  # type: ignore[misc]
    __pydantic_extra__: dict[str, Interval]

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        for value in self.dims.values():
            _increasing(value)
        return self


class Select(_Prepare):
    """Keep positions (start, stop before the end), or the pixels inside or outside a polygon of positions."""

    verb: Literal["select"] = "select"  # type: ignore[misc]
    _example: ClassVar[str] = "y: [12, 62]"
    region: Annotated[tuple[Vertex, ...], Strict(False), Field(min_length=3)] | None = None
    # None leaves the normalised form, and with it the identity of runs, as it is without the word.
    outside: Annotated[tuple[Vertex, ...], Strict(False), Field(min_length=3)] | None = None
    __pydantic_extra__: dict[str, Positions]

    @model_validator(mode="after")
    def _ordered(self) -> Select:
        for value in self.dims.values():
            _increasing(value)
        return self


class Bin(_Prepare):
    """Sum neighbours: whole numbers of positions by dim (`cube.em.bin`)."""

    verb: Literal["bin"] = "bin"  # type: ignore[misc]
    _example: ClassVar[str] = "y: 2, x: 2"
    boundary: Literal["exact", "trim", "pad"] = "exact"
    __pydantic_extra__: dict[str, Count]


# ------------------------------------------------------------------------------------------ steps


class _Step(_Model):
    """A step of the analysis."""

    name: Name | None = None
    # Parameters that came later: at their defaults they are left out of the normalised form, so that the
    # identity of runs without them stays.
    added: ClassVar[tuple[str, ...]] = ()

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str | None) -> str | None:
        if value in RESERVED_NAMES:
            raise PydanticCustomError(
                "reserved", "the name {name} is taken by the result itself", {"name": repr(value)}
            )
        return value

    @property
    def seed(self) -> int | None:
        """The seed that the recipe gives, if it does."""
        given: int | None = getattr(self, "random_state", None)
        return given

    @property
    def draws(self) -> bool:
        """Whether the step needs a seed that the recipe leaves open."""
        return "random_state" in type(self).model_fields and self.seed is None

    @property
    def label(self) -> str:
        """Name of the step's node in the result: its own, or its verb."""
        verb: str = self.verb  # type: ignore[attr-defined]
        return self.name or verb

    def normalised(self) -> dict[str, Any]:
        """The step with every default filled in that was there in the first release of its verb."""
        fields = type(self).model_fields
        at_default = {k for k in self.added if getattr(self, k) == fields[k].default}
        values = self.model_dump(mode="json", exclude={"verb", *at_default})
        return {**values, "name": self.label}

    def parameters(self) -> dict[str, Any]:
        """The estimator's parameters, defaults filled in."""
        return self.model_dump(exclude={"verb", "name", "on", "of"})


class EstimateStep(_Step):
    """How many components the data support (`emcube.estimate_n_components`)."""

    verb: Literal["estimate_n_components"] = "estimate_n_components"
    method: Literal["biwhitening", "parallel", "elbow"] = "biwhitening"
    noise: Literal["auto", "poisson", "quadratic"] = "auto"
    pixel_counts: Positive = 100.0
    channel_counts: Positive = 20.0
    n_shown: Count = 30
    random_state: Seed | None = 0


class SurveyStep(_Step):
    """How many components the data support, by several methods (`emcube.survey_n_components`)."""

    verb: Literal["survey_n_components"] = "survey_n_components"
    max_components: Annotated[int, Strict(), Field(ge=2)] = 6
    n_restarts: Annotated[int, Strict(), Field(ge=2)] = 4
    random_state: Seed | None = 0


class PCAStep(_Step):
    """Principal components (`emcube.IncrementalPCA`)."""

    verb: Literal["pca"] = "pca"
    n_components: Count | Literal["auto"] = 20
    noise: Literal["auto", "poisson"] | None = "auto"
    remove_trivial: Annotated[bool, Strict()] = False
    svd_solver: Literal["auto", "gram", "randomized"] = "auto"
    n_oversamples: Annotated[int, Strict(), Field(ge=0)] = 10
    max_iter: Count = 12
    tol: NotNegative = 0.1
    # Only the randomized solver draws numbers. A seed left open would give every run an identity of
    # its own though the exact solver's answer is the same.
    random_state: Seed | None = 0


class SpectraOf(_Model):
    """Spectra that are given to a step: those of a file, of a result, or of an earlier step.

    A recorded recipe names them by the digest of their values in place of a path.
    """

    path: Text | None = None
    name: Text | None = None
    step: Name | None = None
    component: (
        Annotated[int, Strict(), Field(ge=0)]
        | Annotated[
            tuple[Annotated[int, Strict(), Field(ge=0)], ...], Strict(False), Field(min_length=1)
        ]
        | None
    ) = None
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    spectra: Count | None = None

    @property
    def components(self) -> tuple[int, ...] | None:
        """Positions of the spectra that are meant; None: all."""
        return (self.component,) if isinstance(self.component, int) else self.component

    @property
    def outside(self) -> bool:
        """Whether they come from outside of the recipe."""
        return self.path is not None or self.digest is not None

    @model_validator(mode="after")
    def _one_source(self) -> SpectraOf:
        recorded = self.digest is not None
        places = [k for k in ("path", "digest") if getattr(self, k) is not None]
        if len(places) > 1 or not (places or self.step):
            raise PydanticCustomError(
                "input_source",
                "given spectra are those of a 'path' or of an earlier 'step', got {got}",
                {"got": " and ".join(map(repr, places)) or "neither"},
            )
        if recorded != (self.spectra is not None) or (
            recorded and (self.step is not None or self.component is not None)
        ):
            raise PydanticCustomError(
                "input_source",
                "'digest' and 'spectra' stand together and alone, as emcube writes them",
            )
        if self.name is not None and (self.path is None or self.step is not None):
            raise PydanticCustomError(
                "input_source", "'name' picks a signal of a file, expected a 'path' beside it"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


def _given(value: Any) -> Any:
    """Turn ``a.msa``, ``{path: a.msa}`` and lists of these into a list of mappings."""
    entries = value if isinstance(value, list) else [value]
    return [{"path": one} if isinstance(one, str) else one for one in entries]


def _given_or_word(value: Any) -> Any:
    """As `_given`; a word alone says how to start, and names no file."""
    return value if isinstance(value, str) else _given(value)


Given = Annotated[
    tuple[SpectraOf, ...], Strict(False), BeforeValidator(_given), Field(min_length=1)
]
Start = Annotated[
    tuple[SpectraOf, ...], Strict(False), BeforeValidator(_given_or_word), Field(min_length=1)
]


class XrayBasis(_Model):
    """X-ray physics as a basis of spectra (`emcube.xray_basis`)."""

    elements: Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)] | None = None
    beam_energy: Positive | None = None
    resolution: Positive | None = None
    group: Literal["family", "subshell", "element"] = "family"
    bremsstrahlung: Annotated[bool, Strict()] = True
    layers: dict[str, NotNegative] | None = None
    crystal: Positive | None = None


class NMFStep(_Step):
    """Non-negative components (`emcube.MiniBatchNMF`)."""

    added: ClassVar[tuple[str, ...]] = ("known", "basis", "sparsity", "smoothness")

    verb: Literal["nmf"] = "nmf"
    n_components: Count | Literal["auto"] = "auto"
    beta_loss: Literal["kullback-leibler", "frobenius"] = "kullback-leibler"
    volume: NotNegative = 1.0
    tol: NotNegative = 1e-4
    max_iter: Count = 200
    pool: Count | Literal["auto"] = "auto"
    init: Literal["bins", "random"] | Start = "bins"
    n_epochs: Annotated[int, Strict(), Field(ge=0)] | Literal["auto"] = "auto"
    batch_size: Count = 32768
    sum_to_one: Annotated[bool, Strict()] = False
    known: Given | None = None
    basis: XrayBasis | None = None
    sparsity: NotNegative = 0.0
    smoothness: NotNegative = 0.0
    random_state: Seed | None = None

    @model_validator(mode="after")
    def _together(self) -> NMFStep:
        if self.smoothness and self.pool not in ("auto", 1):
            raise PydanticCustomError(
                "parameter",
                "'smoothness' takes the place of 'pool', got pool={pool}: leave it out",
                {"pool": self.pool},
            )
        if self.sum_to_one and self.beta_loss == "frobenius" and (self.smoothness or self.sparsity):
            raise PydanticCustomError(
                "parameter",
                "'sum_to_one' with a penalty is there for counts, got beta_loss 'frobenius': leave "
                "'sum_to_one' out",
            )
        return self


class KMeansStep(_Step):
    """Clusters of pixels (`emcube.KMeans`)."""

    verb: Literal["kmeans"] = "kmeans"
    n_clusters: Count | Literal["auto"] = "auto"
    on: Name | None = None
    features: Literal["auto", "profiles", "counts"] = "auto"
    n_subspace: Count | None = None
    n_init: Count = 4
    max_iter: Count = 100
    tol: NotNegative = 1e-4
    random_state: Seed | None = None


class MCRStep(_Step):
    """Spectra and maps by alternating least squares (`emcube.MCRALS`)."""

    added: ClassVar[tuple[str, ...]] = ("known",)

    verb: Literal["mcr"] = "mcr"
    n_components: Count | Literal["auto"] = "auto"
    noise: Literal["auto", "poisson"] | None = "auto"
    nonnegative: Literal["both", "loadings", "spectra", "neither"] = "both"
    closure: Annotated[bool, Strict()] = False
    unimodal: Annotated[bool, Strict()] = False
    known: Given | None = None
    init: Literal["corners", "random"] | Start = "corners"
    pool: Count | Literal["auto"] = "auto"
    max_iter: Count = 100
    tol: NotNegative = 1e-3
    random_state: Seed | None = None


class BayesianUnmixingStep(_Step):
    """Components, loadings and how sure both are (`emcube.BayesianUnmixing`)."""

    verb: Literal["bayesian_unmixing"] = "bayesian_unmixing"
    n_components: Count | Literal["auto"] = "auto"
    noise: Literal["auto", "poisson"] | None = "auto"
    sparse: Annotated[bool, Strict()] = True
    concentration: Annotated[float, Strict(), Field(gt=1e-3, allow_inf_nan=False)] = 1.0
    simplex: Annotated[bool, Strict()] = True
    n_chains: Count = 2
    n_warmup: Annotated[int, Strict(), Field(ge=0)] = 20
    n_draws: Count = 60
    n_steps: Count | Literal["auto"] = "auto"
    level: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.9
    pool: Count | Literal["auto"] = "auto"
    random_state: Seed | None = None


class ICAStep(_Step):
    """Independent components (`emcube.FastICA`)."""

    verb: Literal["ica"] = "ica"
    n_components: Count | Literal["auto"] = "auto"
    noise: Literal["auto", "poisson"] | None = "auto"
    domain: Literal["spectral", "spatial"] = "spectral"
    derivative: Annotated[int, Strict(), Field(ge=0)] | Literal["auto"] = "auto"
    span: Count | Literal["auto"] = "auto"
    fun: Literal["logcosh", "exp", "cube"] = "logcosh"
    max_iter: Count = 1000
    tol: Positive = 1e-8
    random_state: Seed | None = None


class VarimaxStep(_Step):
    """Principal components turned to be simple (`emcube.Varimax`)."""

    verb: Literal["varimax"] = "varimax"
    n_components: Count | Literal["auto"] = "auto"
    noise: Literal["auto", "poisson"] | None = "auto"
    domain: Literal["spatial", "spectral"] = "spatial"
    gamma: NotNegative = 1.0
    max_iter: Count = 500
    tol: Positive = 1e-10
    # Draws numbers only where a sample of the pixels is looked at.
    random_state: Seed | None = 0


class _GeometryStep(_Step):
    """Endmembers at the corners of the cloud of pixels."""

    n_components: Count | Literal["auto"] = "auto"
    noise: Literal["auto", "poisson"] | None = "auto"
    abundances: Literal["auto", "poisson", "fcls"] = "auto"
    pool: Count | Literal["auto"] = "auto"
    n_average: Count | Literal["auto"] = "auto"
    n_init: Count = 10
    random_state: Seed | None = None


class VCAStep(_GeometryStep):
    """Endmembers by vertex component analysis (`emcube.VCA`)."""

    verb: Literal["vca"] = "vca"


class NFINDRStep(_GeometryStep):
    """Endmembers that span the largest simplex (`emcube.NFINDR`)."""

    verb: Literal["nfindr"] = "nfindr"
    max_iter: Count = 100


class SISALStep(_GeometryStep):
    """Endmembers at the corners of the smallest simplex (`emcube.SISAL`)."""

    verb: Literal["sisal"] = "sisal"
    hinge: Literal["noise"] | Positive = "noise"
    level: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.9
    max_iter: Count = 500
    tol: NotNegative = 1e-4


class GaussianMixtureStep(_Step):
    """Clusters of pixels with probabilities (`emcube.GaussianMixture`)."""

    verb: Literal["gaussian_mixture"] = "gaussian_mixture"
    n_clusters: Count | Literal["auto"] = "auto"
    on: Name | None = None
    covariance_type: Literal["full", "diag", "tied"] = "full"
    features: Literal["auto", "profiles", "scores", "counts"] = "auto"
    n_subspace: Count | None = None
    reg_covar: NotNegative = 1e-6
    n_init: Count = 2
    max_iter: Count = 100
    tol: NotNegative = 1e-3
    random_state: Seed | None = None


class PoissonMixtureStep(_Step):
    """Clusters of pixels of counts with probabilities (`emcube.PoissonMixture`)."""

    verb: Literal["poisson_mixture"] = "poisson_mixture"
    n_clusters: Count | Literal["auto"] = "auto"
    prior_counts: Annotated[float, Strict(), Field(ge=1e-6, allow_inf_nan=False)] = 1.0
    n_subspace: Count | None = None
    n_init: Count = 2
    max_iter: Count = 100
    tol: NotNegative = 1e-3
    random_state: Seed | None = None


class ClusterQualityStep(_Step):
    """How good the clusters of an earlier step are (`emcube.cluster_quality`)."""

    verb: Literal["cluster_quality"] = "cluster_quality"
    of: Name
    n_samples: Annotated[int, Strict(), Field(ge=10)] = 2000
    n_repeats: Count = 10
    random_state: Seed | None = 0


class UncertaintyStep(_Step):
    """How sure an earlier nmf step is (`emcube.uncertainty`)."""

    verb: Literal["uncertainty"] = "uncertainty"
    on: Name | None = None
    level: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.9
    method: Literal["bootstrap", "fisher", "thinning", "area", "restarts"] = "bootstrap"
    n_replicates: Annotated[int, Strict(), Field(ge=2)] | None = None
    random_state: Seed | None = 0

    @model_validator(mode="after")
    def _replicates_of_something(self) -> UncertaintyStep:
        if self.method == "fisher" and self.n_replicates is not None:
            raise PydanticCustomError(
                "parameter",
                "'n_replicates' is {n}, but method 'fisher' makes no replicates: leave it out, or take "
                "method 'bootstrap'",
                {"n": self.n_replicates},
            )
        return self


class DiagnosticsStep(_Step):
    """What an earlier nmf step leaves, and what denoising does to counts (`emcube.diagnostics`)."""

    verb: Literal["diagnostics"] = "diagnostics"
    on: Name | None = None
    n_components: Count | None = None
    lines: Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)] | None = None
    max_lag: Count = 4
    random_state: Seed | None = 0


class PhaseFractionsStep(_Step):
    """Fractions of the phases of an earlier step, field by field (`emcube.phase_fractions`)."""

    verb: Literal["phase_fractions"] = "phase_fractions"
    of: Name | None = None
    level: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.95
    relative_error: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.1
    n_draws: Annotated[int, Strict(), Field(ge=2)] = 4
    random_state: Seed | None = 0


def _tag(value: Any) -> str | None:
    verb = value.get("verb") if isinstance(value, dict) else getattr(value, "verb", None)
    return verb if isinstance(verb, str) else None


Step = Annotated[
    Annotated[EstimateStep, Tag("estimate_n_components")]
    | Annotated[SurveyStep, Tag("survey_n_components")]
    | Annotated[PCAStep, Tag("pca")]
    | Annotated[NMFStep, Tag("nmf")]
    | Annotated[MCRStep, Tag("mcr")]
    | Annotated[BayesianUnmixingStep, Tag("bayesian_unmixing")]
    | Annotated[ICAStep, Tag("ica")]
    | Annotated[VarimaxStep, Tag("varimax")]
    | Annotated[VCAStep, Tag("vca")]
    | Annotated[NFINDRStep, Tag("nfindr")]
    | Annotated[SISALStep, Tag("sisal")]
    | Annotated[KMeansStep, Tag("kmeans")]
    | Annotated[GaussianMixtureStep, Tag("gaussian_mixture")]
    | Annotated[PoissonMixtureStep, Tag("poisson_mixture")]
    | Annotated[ClusterQualityStep, Tag("cluster_quality")]
    | Annotated[UncertaintyStep, Tag("uncertainty")]
    | Annotated[DiagnosticsStep, Tag("diagnostics")]
    | Annotated[PhaseFractionsStep, Tag("phase_fractions")],
    Discriminator(_tag),
]

PrepareStep = Annotated[
    Annotated[RemoveBackground, Tag("remove_background")]
    | Annotated[Window, Tag("window")]
    | Annotated[Select, Tag("select")]
    | Annotated[Bin, Tag("bin")],
    Discriminator(_tag),
]


AnyStep = (
    EstimateStep
    | SurveyStep
    | PCAStep
    | NMFStep
    | MCRStep
    | BayesianUnmixingStep
    | ICAStep
    | VarimaxStep
    | VCAStep
    | NFINDRStep
    | SISALStep
    | KMeansStep
    | GaussianMixtureStep
    | PoissonMixtureStep
    | ClusterQualityStep
    | UncertaintyStep
    | DiagnosticsStep
    | PhaseFractionsStep
)
"""Any step, as a type."""

ESTIMATES = (EstimateStep, SurveyStep)
"""Steps that find the number that `auto` stands for."""

WITH_LOADINGS = (
    PCAStep,
    NMFStep,
    MCRStep,
    BayesianUnmixingStep,
    ICAStep,
    VarimaxStep,
    VCAStep,
    NFINDRStep,
    SISALStep,
)
"""Steps that give loadings, on which others may go on."""

WITH_SPECTRA = (
    NMFStep,
    MCRStep,
    BayesianUnmixingStep,
    VCAStep,
    NFINDRStep,
    SISALStep,
)
"""Steps whose components are not negative, so that others may be given them."""

WITH_PHASES = (
    NMFStep,
    MCRStep,
    VCAStep,
    NFINDRStep,
    SISALStep,
    KMeansStep,
    GaussianMixtureStep,
    PoissonMixtureStep,
)
"""Steps that give amounts of phases, which `PhaseFractionsStep` sums."""

AnyPrepare = RemoveBackground | Window | Select | Bin
"""Any preparation, as a type."""


def _spread(entries: Any) -> Any:
    """Turn ``{pca: {n_components: 3}}`` into ``{verb: pca, n_components: 3}``."""
    return [_spread_one(e) for e in entries] if isinstance(entries, list) else entries


def _spread_one(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"verb": entry}
    if not isinstance(entry, dict) or len(entry) != 1:
        return entry
    (verb, parameters), *_ = entry.items()
    if parameters is None:
        return {"verb": verb}
    if not isinstance(parameters, dict):
        return {"verb": verb, NOT_A_MAPPING: parameters}
    return {**parameters, "verb": verb}


class RecipeModel(_Model):
    """A whole recipe."""

    emcube: Literal[1]
    input: Input | None = None
    where: Where | None = None
    prepare: Annotated[tuple[PrepareStep, ...], Strict(False)] = ()
    steps: Annotated[tuple[Step, ...], Strict(False), Field(min_length=1)]
    output: Text | None = None

    @field_validator("prepare", "steps", mode="before")
    @classmethod
    def _verbs(cls, value: Any) -> Any:
        return _spread(value)
