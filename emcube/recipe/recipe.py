"""A recipe: a whole analysis as one declarative file, checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from emcube.errors import RecipeError
from emcube.recipe import schema
from emcube.recipe.document import Document, Location, parse_yaml, read_yaml
from emcube.recipe.explain import Fault, raise_faults, translate

if TYPE_CHECKING:
    from emcube.recipe.spectra import GivenSpectra

__all__ = ["Recipe"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """A valid recipe and where it came from.

    Make one with `Recipe.read`, `Recipe.parse` or `Recipe.from_dict`.

    Attributes
    ----------
    model : RecipeModel
        What it says, with defaults filled in.
    document : Document
        Its data as written, with lines.
    folder : pathlib.Path
        What its relative paths start from: the recipe's own folder.
    given : tuple of GivenSpectra
        Spectra that its steps name, once they have been read (see `emcube.recipe.spectra`).

    Examples
    --------
    >>> recipe = Recipe.from_dict({"emcube": 1, "steps": [{"pca": {"n_components": 5}}]})
    >>> [step.label for step in recipe.steps]
    ['pca']
    """

    model: schema.RecipeModel
    document: Document
    folder: Path
    given: tuple[GivenSpectra, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read and check a file.

        Raises
        ------
        RecipeError
            Names each mistake with the line of the file.
        """
        path = Path(path)
        return cls._check(read_yaml(path), path.resolve().parent)

    @classmethod
    def parse(cls, text: str, *, folder: str | Path = ".") -> Recipe:
        """Read and check YAML text."""
        return cls._check(parse_yaml(text), Path(folder).resolve())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, folder: str | Path = ".") -> Recipe:
        """Check plain data; the version (``emcube: 1``) may be left out."""
        # Through JSON: tuples become lists as YAML has them, and what is no plain data is refused.
        try:
            plain = json.loads(json.dumps({"emcube": schema.FORMAT, **data}))
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"the recipe holds something that is no plain data: {error}",
                hint="use text, numbers, true, false, lists and mappings",
            ) from None
        return cls._check(Document(plain), Path(folder).resolve())

    @classmethod
    def _check(cls, document: Document, folder: Path) -> Recipe:
        try:
            model = schema.RecipeModel.model_validate(document.data)
        except ValidationError as error:
            raise_faults(document, translate(error, document))
            raise  # not reached: a validation error has at least one fault
        raise_faults(document, list(_contradictions(model)))
        return cls(model, document, folder)

    # ---------------------------------------------------------------------------------- what it says

    @property
    def steps(self) -> tuple[schema.AnyStep, ...]:
        """The steps in their order."""
        return self.model.steps

    @property
    def prepare(self) -> tuple[schema.AnyPrepare, ...]:
        """What is done to the cube before the first step."""
        return self.model.prepare

    def locate(self, path: str) -> str:
        """Resolve a path of the recipe against its folder; URLs stay as they are."""
        if "://" in path:
            return path
        return str(self.folder / Path(path).expanduser())

    def normalised(self) -> dict[str, Any]:
        """Say the same with every default filled in, without input and output.

        Two recipes that mean the same analysis have the same normalised form; it is a recipe itself.
        """
        model = self.model
        return {
            "emcube": schema.FORMAT,
            "where": None if model.where is None else model.where.model_dump(mode="json"),
            "prepare": [
                {p.verb: p.model_dump(mode="json", exclude={"verb"}, exclude_none=True)}
                for p in model.prepare
            ],
            "steps": [{s.verb: s.normalised()} for s in model.steps],
        }

    def place(self, location: Location) -> str:
        """Name a place of the recipe for a message."""
        return self.document.place(location)

    def step_place(self, index: int) -> str:
        """Name the place of a step for a message."""
        return self.document.place(("steps", index))


def _contradictions(model: schema.RecipeModel) -> Iterator[Fault]:
    """Find what is wrong between steps, though each alone is right."""
    earlier: dict[str, schema.AnyStep] = {}
    for i, step in enumerate(model.steps):
        at: Location = ("steps", i, step.verb)
        # Names are folders, and some file systems take no notice of case.
        same = next((n for n in earlier if n.casefold() == step.label.casefold()), None)
        if same is not None:
            but = "" if same == step.label else f" but for the case of letters ({same!r})"
            yield Fault(
                at,
                f"two steps have the name {step.label!r}{but}",
                f"give one its own, as in '- {step.verb}: {{name: {step.label}_2, ...}}'",
            )
        estimated = any(isinstance(s, schema.ESTIMATES) for s in earlier.values())
        for parameter in ("n_components", "n_clusters"):
            if getattr(step, parameter, None) == "auto" and not estimated:
                yield Fault(
                    (*at, parameter),
                    f"{parameter!r} of {step.verb} is 'auto', but no earlier step estimates a number",
                    "put '- estimate_n_components:' or '- survey_n_components:' before it, or give a number",
                )
        if isinstance(step, schema.KMeansStep | schema.GaussianMixtureStep) and step.on is not None:
            target = earlier.get(step.on)
            if not isinstance(target, schema.WITH_LOADINGS):
                able = [n for n, s in earlier.items() if isinstance(s, schema.WITH_LOADINGS)]
                yield Fault(
                    (*at, "on"),
                    f"'on' of {step.verb} is {step.on!r}, expected an earlier step with loadings",
                    "there are " + ", ".join(map(repr, able))
                    if able
                    else "put a pca or nmf step before it, or leave 'on' out",
                )
        if isinstance(step, schema.ClusterQualityStep):
            clustered = schema.KMeansStep | schema.GaussianMixtureStep | schema.PoissonMixtureStep
            if not isinstance(earlier.get(step.of), clustered):
                able = [n for n, s in earlier.items() if isinstance(s, clustered)]
                yield Fault(
                    (*at, "of"),
                    f"'of' of {step.verb} is {step.of!r}, expected an earlier step with clusters",
                    "there are " + ", ".join(map(repr, able))
                    if able
                    else "put a kmeans or mixture step before it",
                )
        if isinstance(step, schema.UncertaintyStep | schema.DiagnosticsStep):
            yield from _without_target(step, at, earlier)
        if isinstance(step, schema.PhaseFractionsStep):
            yield from _without_phases(step, at, earlier)
        if isinstance(step, schema.NMFStep | schema.MCRStep):
            yield from _without_spectra(step, at, earlier)
        earlier[step.label] = step


def _without_spectra(
    step: schema.NMFStep | schema.MCRStep, at: Location, earlier: dict[str, schema.AnyStep]
) -> Iterator[Fault]:
    """Find spectra that are to come from a step that is not there, or has none of the kind."""
    able = [n for n, s in earlier.items() if isinstance(s, schema.WITH_SPECTRA)]
    for parameter in ("known", "init"):
        named = getattr(step, parameter)
        for i, one in enumerate(named if isinstance(named, tuple) else ()):
            if one.outside or one.step in able:
                continue
            yield Fault(
                (*at, parameter, i),
                f"{parameter!r} of {step.verb} names the step {one.step!r}, expected an earlier step with "
                "components that are not negative",
                "there are " + ", ".join(map(repr, able))
                if able
                else "put '- vca: {n_components: 3}' before it, or give a 'path' too, of a result",
            )


def _without_phases(
    step: schema.PhaseFractionsStep, at: Location, earlier: dict[str, schema.AnyStep]
) -> Iterator[Fault]:
    """Find a step of fractions of phases that are not there."""
    able = [n for n, s in earlier.items() if isinstance(s, schema.WITH_PHASES)]
    if step.of is None and able:
        return
    if step.of not in able:
        given = "" if step.of is None else f"'of' of {step.verb} is {step.of!r}, "
        yield Fault(
            at if step.of is None else (*at, "of"),
            f"{given}expected an earlier step with loadings that are not negative, or with clusters",
            "there are " + ", ".join(map(repr, able))
            if able
            else "put '- nmf: {n_components: 3}' or '- kmeans: {n_clusters: 3}' before it",
        )


def _without_target(
    step: schema.UncertaintyStep | schema.DiagnosticsStep,
    at: Location,
    earlier: dict[str, schema.AnyStep],
) -> Iterator[Fault]:
    """Find a step that says something about an nmf step that is not there."""
    able = [name for name, other in earlier.items() if isinstance(other, schema.NMFStep)]
    if step.on is not None and step.on not in able:
        yield Fault(
            (*at, "on"),
            f"'on' of {step.verb} is {step.on!r}, expected an earlier nmf step",
            "there are " + ", ".join(map(repr, able)) if able else "put an nmf step before it",
        )
        return
    if not able:
        yield Fault(
            at,
            f"{step.verb} says something about an nmf step, and there is none before it",
            "put '- nmf: {n_components: 3}' before it",
        )
        return
    target = earlier[step.on or able[-1]]
    # What a penalty leaves of the data, or a basis takes from the spread, is no question of counting.
    words = ["sparsity", "smoothness"]
    words += ["known", "basis"] if isinstance(step, schema.UncertaintyStep) else []
    asked = [name for name in words if getattr(target, name, None)]
    if asked:
        yield Fault(
            (*at, "on"),
            f"{step.verb} is not there for an nmf step with {asked[0]!r}, as {target.label!r} is",
            "put an nmf step without it before this one, and name that in 'on'",
        )
    least_squares = getattr(target, "beta_loss", "") == "frobenius"
    if isinstance(step, schema.UncertaintyStep) and step.method == "thinning" and least_squares:
        yield Fault(
            (*at, "method"),
            f"'method' of {step.verb} is 'thinning', which deals counts to two halves, but "
            f"{target.label!r} is of least squares",
            "take 'bootstrap', which gives residuals new signs",
        )
