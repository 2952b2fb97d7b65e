"""What is done to the cube and which steps run, in the words of a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from emcube.errors import InputError, SelectionError
from emcube.recipe import Recipe, schema

if TYPE_CHECKING:
    from emcube.explore.regions import Region

__all__ = ["Field", "Settings", "fields_of"]

Plain = dict[str, Any]

ORDER = ("remove_background", "window", "select", "bin")
"""Where a preparation that is added goes: energies first, then pixels, then bins."""


@dataclass(frozen=True)
class Field:
    """A parameter of a step, for a form.

    Attributes
    ----------
    name : str
    default : object
        JSON value; None for a parameter that has to be given.
    choices : tuple
        Values that it may have besides numbers; empty where any of `kind` will do.
    kind : {"whole number", "number", "yes or no", "text"}
    required : bool
        It has to be given.
    """

    name: str
    default: Any
    choices: tuple[Any, ...]
    kind: str
    required: bool = False


@dataclass(frozen=True)
class Settings:
    """A recipe without input and output. It never changes: each method gives a new one.

    Attributes
    ----------
    steps : tuple of dict
        As in a recipe: ``({"pca": {"n_components": 20}}, {"nmf": {"n_components": 3, "random_state": 0}})``.
    prepare : tuple of dict
        ``({"window": {"energy": [1.0, 9.5]}}, {"select": {"y": [12, 62]}})``.
    where : dict or None
        ``{"min_smoothed_counts": 5}``.

    Examples
    --------
    >>> settings = Settings.default().window(energy=(1.0, 9.5)).parts(3)
    >>> settings.prepare
    ({'window': {'energy': [1.0, 9.5]}},)
    >>> settings.step("nmf")["n_components"]
    3
    """

    steps: tuple[Plain, ...] = ()
    prepare: tuple[Plain, ...] = ()
    where: Plain | None = None

    @classmethod
    def default(cls, n_components: int | None = None) -> Settings:
        """The steps of a run without a recipe: number of components, PCA, NMF, k-means."""
        from emcube.recipe.running import default_recipe

        return cls.from_recipe(default_recipe(n_components))

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> Settings:
        """Those of a recipe as plain data, such as `Result.recipe`."""
        return cls(
            tuple(map(_entry, recipe.get("steps") or ())),
            tuple(map(_entry, recipe.get("prepare") or ())),
            _copy(recipe.get("where")),
        )

    def as_recipe(self, named_input: Mapping[str, Any] | None = None) -> Plain:
        """As a recipe in plain data."""
        recipe: Plain = {"emcube": schema.FORMAT}
        if named_input is not None:
            recipe["input"] = dict(named_input)
        if self.where is not None:
            recipe["where"] = self.where
        if self.prepare:
            recipe["prepare"] = list(self.prepare)
        recipe["steps"] = list(self.steps)
        copied: Plain = _copy(recipe)
        return copied

    def check(self) -> Settings:
        """Hold them against the recipe's schema; returns them.

        Raises
        ------
        RecipeError
            Names what is wrong.
        """
        Recipe.from_dict(self.as_recipe())
        return self

    def with_seeds(self) -> Settings:
        """Give every step that draws random numbers a seed, so that a run by itself draws the same.

        0 where a step names none: a click and its recipe are the same run.
        """
        models, steps = _models(), []
        for one in self.steps:
            (verb, given), *_ = one.items()
            given = given or {}
            field = models[verb].model_fields.get("random_state") if verb in models else None
            if field is not None and given.get("random_state", field.default) is None:
                given = {**given, "random_state": 0}
            steps.append({verb: given})
        return replace(self, steps=tuple(steps))

    # ---------------------------------------------------------------------------------------- preparation

    def window(self, **windows: tuple[float, float] | None) -> Settings:
        """Keep a range of the signal dims (in their units, ends included); None takes it away."""
        return self._with_dims("window", windows)

    def background(self, **window: tuple[float, float] | None) -> Settings:
        """Fit a power law in a window before the edge and subtract it; None takes that away."""
        return self._with_dims("remove_background", window)

    def bins(self, **factors: int) -> Settings:
        """Sum neighbours by dim, ``y=2, x=2``; 1 takes it away. What does not fill a bin is left out."""
        kept = {d: n for d, n in {**self._dims("bin"), **factors}.items() if n != 1}
        others = [p for p in self.prepare if "bin" not in p]
        return self._prepared(others, {"bin": {**kept, "boundary": "trim"}} if kept else None)

    def keeping(self, region: Region) -> Settings:
        """Use the pixels of a region only, in place of one that was kept before."""
        others = [p for p in self.prepare if not _cuts(p)]
        return self._prepared(others, region.keeping())

    def leaving_out(self, region: Region, nav_dims: Sequence[str]) -> Settings:
        """Leave a region out, besides those that are left out already.

        Parameters
        ----------
        region : Region
        nav_dims : sequence of str
            Navigation dims of the cube.

        Raises
        ------
        SelectionError
            See `Region.leaving_out`.
        """
        return self._prepared(self.prepare, region.leaving_out(nav_dims))

    def everywhere(self) -> Settings:
        """Use all pixels again."""
        return self._prepared([p for p in self.prepare if "select" not in p], None)

    def counts(self, least: float | None, sigma: float = 1.5) -> Settings:
        """Use pixels whose smoothed counts reach a level; None uses all."""
        rule = None if least is None else {"min_smoothed_counts": least, "sigma": sigma}
        return replace(self, where=rule)

    def prepared_with(self, verb: str) -> list[Plain]:
        """What is given for each preparation of a verb, in order."""
        return [_copy(p[verb]) for p in self.prepare if verb in p]

    def _dims(self, verb: str) -> Plain:
        found = self.prepared_with(verb)
        return {k: v for k, v in (found[-1] if found else {}).items() if k != "boundary"}

    def _with_dims(self, verb: str, given: Mapping[str, tuple[float, float] | None]) -> Settings:
        merged = {**self._dims(verb), **given}
        kept = {d: [float(a[0]), float(a[1])] for d, a in merged.items() if a is not None}
        others = [p for p in self.prepare if verb not in p]
        return self._prepared(others, {verb: kept} if kept else None)

    def _prepared(self, others: Iterable[Plain], added: Plain | None) -> Settings:
        """Put one more entry where it belongs; the others stay in their order."""
        entries = list(map(_copy, others))
        if added is not None:
            at = max((i + 1 for i, e in enumerate(entries) if _rank(e) <= _rank(added)), default=0)
            moved = [e for e in entries[:at] if "bin" in e or _cuts(e)]
            if "select" in added and moved:
                raise SelectionError(
                    f"region: its positions are those of the whole cube, but {next(iter(moved[0]))!r} comes "
                    "before it and changes them",
                    hint="use everything again and take bins away, then draw the region",
                )
            entries.insert(at, _copy(added))
        return replace(self, prepare=tuple(entries))

    # ---------------------------------------------------------------------------------------------- steps

    def names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(_name(s) for s in self.steps)

    def step(self, name: str) -> Plain:
        """Parameters that are given for a step; the rest are defaults.

        Raises
        ------
        InputError
            There is no such step.
        """
        for one in self.steps:
            if _name(one) == name:
                return {
                    k: v for k, v in _copy(next(iter(one.values())) or {}).items() if k != "name"
                }
        raise InputError(
            f"there is no step {name!r}, the steps are {list(self.names())}",
            hint="choose one of those",
        )

    def with_step(self, verb: str, name: str | None = None, **parameters: Any) -> Settings:
        """Change parameters of a step; a step that is not there yet goes to the end."""
        wanted = name or verb
        label = {} if wanted == verb else {"name": wanted}
        steps = list(self.steps)
        for i, one in enumerate(steps):
            if _name(one) == wanted:
                steps[i] = {verb: {**self.step(wanted), **_copy(parameters), **label}}
                return replace(self, steps=tuple(steps))
        return replace(self, steps=(*steps, {verb: {**_copy(parameters), **label}}))

    def without_step(self, name: str) -> Settings:
        """Leave a step out."""
        self.step(name)
        return replace(self, steps=tuple(s for s in self.steps if _name(s) != name))

    def only(self, *names: str) -> Settings:
        """Run some of the steps only, in their order."""
        for name in names:
            self.step(name)
        return replace(self, steps=tuple(s for s in self.steps if _name(s) in names))

    def parts(self, n: int | None) -> Settings:
        """Set components and clusters of every step that takes them from the estimate by itself (not of PCA).

        Parameters
        ----------
        n : int or None
            None: as many as the estimate says.
        """
        number: int | str = "auto" if n is None else n
        models, steps = _models(), []
        for one in self.steps:
            (verb, given), *_ = one.items()
            fields = models[verb].model_fields if verb in models else {}
            counted = [k for k in ("n_components", "n_clusters") if k in fields]
            new = {k: number for k in counted if fields[k].default == "auto"}
            steps.append({verb: {**(given or {}), **new}})
        return replace(self, steps=tuple(map(_copy, steps)))


def fields_of(verb: str) -> list[Field]:
    """Parameters of a step, for a form, in the order of its schema.

    Raises
    ------
    InputError
        There is no such step.
    """
    model = _models().get(verb)
    if model is None:
        raise InputError(
            f"there is no step {verb!r}, expected one of {list(_models())}", hint="check the word"
        )
    fields = model.model_fields.items()
    return [_field(name, info) for name, info in fields if name not in ("verb", "name")]


def _models() -> dict[str, Any]:
    """Schema of each step, by verb."""
    return {str(m.model_fields["verb"].default): m for m in get_args(schema.AnyStep)}


def _field(name: str, info: Any) -> Field:
    words: list[Any] = []
    types: set[Any] = set()

    def walk(part: Any) -> None:
        if get_origin(part) is Literal:
            words.extend(get_args(part))
        elif get_origin(part) is None:
            if part is type(None):
                words.append(None)
            else:
                types.add(part)
        else:
            for inner in get_args(part):
                # What annotates a type (its bounds) is no type.
                if isinstance(inner, type) or get_origin(inner) is not None:
                    walk(inner)

    walk(info.annotation)
    kinds = {bool: "yes or no", int: "whole number", float: "number"}
    kind = next((k for t, k in kinds.items() if t in types), "text")
    required = bool(info.is_required())
    return Field(name, None if required else info.default, tuple(words), kind, required)


def _rank(entry: Mapping[str, Any]) -> tuple[int, bool]:
    """Where a preparation goes. Regions that are left out come before one that is kept: that cuts the cube to
    its box, and positions after it would count from there.
    """
    return ORDER.index(next(iter(entry))), _cuts(entry)


def _cuts(entry: Mapping[str, Any]) -> bool:
    """Whether it changes positions by cutting the cube."""
    return "select" in entry and set(entry["select"] or {}) != {"outside"}


def _name(step: Mapping[str, Any]) -> str:
    (verb, given), *_ = step.items()
    return str((given or {}).get("name") or verb)


def _entry(entry: Any) -> Plain:
    """One entry of a recipe's list as ``{verb: {...}}``, however briefly it is written."""
    if isinstance(entry, str):
        return {entry: {}}
    (verb, given), *_ = entry.items()
    plain = _copy(given or {})
    if plain.get("name") == verb:
        del plain["name"]
    return {verb: plain}


def _copy(value: Any) -> Any:
    """Plain data of its own, with lists for tuples."""
    return json.loads(json.dumps(value))
