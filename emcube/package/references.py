"""Papers and software that an analysis stands on, as BibTeX and for the crate; and how to cite emcube."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Reference",
    "bibliography",
    "dataset_reference",
    "references_of",
    "software_citation",
    "software_id",
]

AUTHORS = "The emcube developers"
TITLE = "emcube: unmixing electron-microscopy datacubes that are larger than memory"
LICENSE = "BSD-3-Clause"


@dataclass(frozen=True)
class Reference:
    """One entry of a bibliography.

    Attributes
    ----------
    key : str
        By which BibTeX knows it.
    kind : str
        ``article``, ``inproceedings``, ``software`` or ``dataset``.
    short : str
        As it is called in running text.
    fields : dict of str to str
        Fields of the entry; texts without braces of their own.
    """

    key: str
    kind: str
    short: str
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def doi(self) -> str | None:
        """Its digital object identifier."""
        return self.fields.get("doi")

    def to_bibtex(self) -> str:
        """The entry."""
        given = {name: _escaped(name, text) for name, text in self.fields.items()}
        # Styles would set titles in lower case, names of methods and materials included.
        given["title"] = f"{{{given['title']}}}"
        if self.kind == "software":
            given["author"] = f"{{{given['author']}}}"  # a group, which has no family name
            given["note"] = (
                f"Software, version {given.pop('version')}, licence {given.pop('license')}"
            )
        elif self.kind == "dataset":
            given["note"] = "Data set"
        # BibTeX's own styles know neither software nor data sets.
        kind = "misc" if self.kind in ("software", "dataset") else self.kind
        rows = [f"  {name} = {{{text}}}" for name, text in given.items()]
        return f"@{kind}{{{self.key},\n" + ",\n".join(rows) + "\n}\n"


def _escaped(name: str, text: str) -> str:
    if name in ("doi", "url"):
        return re.sub(r"[{}\\]", "", text)
    return re.sub(r"([#$%&_{}])", r"\\\1", text.replace("\\", " "))


def _article(
    key: str, short: str, authors: str, title: str, journal: str, where: str, year: int, doi: str
) -> Reference:
    volume, _, pages = where.partition(":")
    given = {
        "author": authors,
        "title": title,
        "journal": journal,
        "volume": volume,
        "pages": pages,
        "year": str(year),
        "doi": doi,
    }
    return Reference(key, "article", short, {k: v for k, v in given.items() if v})


_KEENAN = _article(
    "Keenan2004",
    "Keenan and Kotula 2004",
    "Keenan, Michael R. and Kotula, Paul G.",
    "Accounting for Poisson noise in the multivariate analysis of ToF-SIMS spectrum images",
    "Surface and Interface Analysis",
    "36:203--212",
    2004,
    "10.1002/sia.1657",
)
_LANDA = _article(
    "Landa2022",
    "Landa et al. 2022",
    "Landa, Boris and Zhang, Thomas T. C. K. and Kluger, Yuval",
    "Biwhitening reveals the rank of a count matrix",
    "SIAM Journal on Mathematics of Data Science",
    "4:1420--1446",
    2022,
    "10.1137/21M1456807",
)
_NEUFELD = _article(
    "Neufeld2024",
    "Neufeld et al. 2024",
    "Neufeld, Anna and Dharamshi, Ameer and Gao, Lucy L. and Witten, Daniela",
    "Data thinning for convolution-closed distributions",
    "Journal of Machine Learning Research",
    "25:1--35",
    2024,
    "10.48550/arXiv.2301.07276",
)
_FLYVBJERG = _article(
    "Flyvbjerg1989",
    "Flyvbjerg and Petersen 1989",
    "Flyvbjerg, H. and Petersen, H. G.",
    "Error estimates on averages of correlated data",
    "The Journal of Chemical Physics",
    "91:461--466",
    1989,
    "10.1063/1.457480",
)
_HALKO = _article(
    "Halko2011",
    "Halko et al. 2011",
    "Halko, N. and Martinsson, P. G. and Tropp, J. A.",
    "Finding structure with randomness: probabilistic algorithms for constructing approximate matrix "
    "decompositions",
    "SIAM Review",
    "53:217--288",
    2011,
    "10.1137/090771806",
)
_LEPLAT = _article(
    "Leplat2020",
    "Leplat et al. 2020",
    "Leplat, Valentin and Gillis, Nicolas and Ang, Andersen M. S.",
    "Blind audio source separation with minimum-volume beta-divergence NMF",
    "IEEE Transactions on Signal Processing",
    "68:3400--3410",
    2020,
    "10.1109/TSP.2020.2991801",
)
_LEE = Reference(
    "Lee2001",
    "inproceedings",
    "Lee and Seung 2001",
    {
        "author": "Lee, Daniel D. and Seung, H. Sebastian",
        "title": "Algorithms for non-negative matrix factorization",
        "booktitle": "Advances in Neural Information Processing Systems 13",
        "pages": "556--562",
        "year": "2001",
    },
)
_BACHEM = Reference(
    "Bachem2018",
    "inproceedings",
    "Bachem et al. 2018",
    {
        "author": "Bachem, Olivier and Lucic, Mario and Krause, Andreas",
        "title": "Scalable k-means clustering via lightweight coresets",
        "booktitle": "Proceedings of the 24th ACM SIGKDD International Conference on Knowledge Discovery "
        "and Data Mining",
        "pages": "1119--1127",
        "year": "2018",
        "doi": "10.1145/3219819.3219973",
    },
)
_DEMPSTER = _article(
    "Dempster1977",
    "Dempster et al. 1977",
    "Dempster, A. P. and Laird, N. M. and Rubin, D. B.",
    "Maximum likelihood from incomplete data via the EM algorithm",
    "Journal of the Royal Statistical Society: Series B",
    "39:1--22",
    1977,
    "10.1111/j.2517-6161.1977.tb01600.x",
)
_GEBRU = _article(
    "Gebru2016",
    "Gebru et al. 2016",
    "Gebru, Israel Dejene and Alameda-Pineda, Xavier and Forbes, Florence and Horaud, Radu",
    "EM algorithms for weighted-data clustering with application to audio-visual scene analysis",
    "IEEE Transactions on Pattern Analysis and Machine Intelligence",
    "38:2402--2415",
    2016,
    "10.1109/TPAMI.2016.2522425",
)
_HENNIG = _article(
    "Hennig2007",
    "Hennig 2007",
    "Hennig, Christian",
    "Cluster-wise assessment of cluster stability",
    "Computational Statistics & Data Analysis",
    "52:258--271",
    2007,
    "10.1016/j.csda.2006.11.025",
)
_ROUSSEEUW = _article(
    "Rousseeuw1987",
    "Rousseeuw 1987",
    "Rousseeuw, Peter J.",
    "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis",
    "Journal of Computational and Applied Mathematics",
    "20:53--65",
    1987,
    "10.1016/0377-0427(87)90125-7",
)
_ICA = _article(
    "Hyvarinen2000",
    "Hyvärinen and Oja 2000",
    "Hyvärinen, A. and Oja, E.",
    "Independent component analysis: algorithms and applications",
    "Neural Networks",
    "13:411--430",
    2000,
    "10.1016/S0893-6080(00)00026-5",
)
_KAISER = _article(
    "Kaiser1958",
    "Kaiser 1958",
    "Kaiser, Henry F.",
    "The varimax criterion for analytic rotation in factor analysis",
    "Psychometrika",
    "23:187--200",
    1958,
    "10.1007/BF02289233",
)
_MCR = _article(
    "Tauler1995",
    "Tauler 1995",
    "Tauler, Romà",
    "Multivariate curve resolution applied to second order data",
    "Chemometrics and Intelligent Laboratory Systems",
    "30:133--146",
    1995,
    "10.1016/0169-7439(95)00047-X",
)
_CEMGIL = _article(
    "Cemgil2009",
    "Cemgil 2009",
    "Cemgil, Ali Taylan",
    "Bayesian inference for nonnegative matrix factorisation models",
    "Computational Intelligence and Neuroscience",
    "2009:785152",
    2009,
    "10.1155/2009/785152",
)
_DOBIGEON = _article(
    "Dobigeon2009",
    "Dobigeon et al. 2009",
    "Dobigeon, Nicolas and Moussaoui, Saïd and Coulon, Martial and Tourneret, Jean-Yves and Hero, Alfred O.",
    "Joint Bayesian endmember extraction and linear unmixing for hyperspectral imagery",
    "IEEE Transactions on Signal Processing",
    "57:4355--4368",
    2009,
    "10.1109/TSP.2009.2025797",
)
_VEHTARI = _article(
    "Vehtari2021",
    "Vehtari et al. 2021",
    "Vehtari, Aki and Gelman, Andrew and Simpson, Daniel and Carpenter, Bob and Bürkner, Paul-Christian",
    "Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC",
    "Bayesian Analysis",
    "16:667--718",
    2021,
    "10.1214/20-BA1221",
)
_VCA = _article(
    "Nascimento2005",
    "Nascimento and Bioucas-Dias 2005",
    "Nascimento, José M. P. and Bioucas-Dias, José M.",
    "Vertex component analysis: a fast algorithm to unmix hyperspectral data",
    "IEEE Transactions on Geoscience and Remote Sensing",
    "43:898--910",
    2005,
    "10.1109/TGRS.2005.844293",
)
_NFINDR = _article(
    "Winter1999",
    "Winter 1999",
    "Winter, Michael E.",
    "N-FINDR: an algorithm for fast autonomous spectral end-member determination in hyperspectral data",
    "Proceedings of SPIE",
    "3753:266--275",
    1999,
    "10.1117/12.366289",
)
_SISAL = _article(
    "Li2015",
    "Li et al. 2015",
    "Li, Jun and Agathos, Alexander and Zaharie, Daniela and Bioucas-Dias, José M. and others",
    "Minimum volume simplex analysis: a fast algorithm for linear hyperspectral unmixing",
    "IEEE Transactions on Geoscience and Remote Sensing",
    "53:5067--5082",
    2015,
    "10.1109/TGRS.2015.2417162",
)
_FCLS = _article(
    "Heinz2001",
    "Heinz and Chang 2001",
    "Heinz, Daniel C. and Chang, Chein-I",
    "Fully constrained least squares linear spectral mixture analysis method for material quantification "
    "in hyperspectral imagery",
    "IEEE Transactions on Geoscience and Remote Sensing",
    "39:529--545",
    2001,
    "10.1109/36.911111",
)
_EFRON = _article(
    "Efron1979",
    "Efron 1979",
    "Efron, B.",
    "Bootstrap methods: another look at the jackknife",
    "The Annals of Statistics",
    "7:1--26",
    1979,
    "10.1214/aos/1176344552",
)
_TAULER = _article(
    "Tauler2001",
    "Tauler 2001",
    "Tauler, Romà",
    "Calculation of maximum and minimum band boundaries of feasible solutions for species profiles "
    "obtained by multivariate curve resolution",
    "Journal of Chemometrics",
    "15:627--646",
    2001,
    "10.1002/cem.667",
)
_NUMPY = _article(
    "Harris2020",
    "Harris et al. 2020",
    "Harris, Charles R. and Millman, K. Jarrod and van der Walt, Stéfan J. and others",
    "Array programming with NumPy",
    "Nature",
    "585:357--362",
    2020,
    "10.1038/s41586-020-2649-2",
)
_SCIPY = _article(
    "Virtanen2020",
    "Virtanen et al. 2020",
    "Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and others",
    "SciPy 1.0: fundamental algorithms for scientific computing in Python",
    "Nature Methods",
    "17:261--272",
    2020,
    "10.1038/s41592-019-0686-2",
)
_XARRAY = _article(
    "Hoyer2017",
    "Hoyer and Hamman 2017",
    "Hoyer, Stephan and Hamman, Joe",
    "xarray: N-D labeled arrays and datasets in Python",
    "Journal of Open Research Software",
    "5:10",
    2017,
    "10.5334/jors.148",
)
_ENDMEMBERS = {"vca": [_VCA], "nfindr": [_NFINDR], "sisal": [_SISAL]}
_SHARED = (_NUMPY, _SCIPY, _XARRAY)


def software_id(version: str) -> str:
    """Identifier of a version of emcube: its package URL (purl)."""
    return f"pkg:pypi/emcube@{version}"


def emcube_reference(version: str, year: str) -> Reference:
    """How emcube itself is cited."""
    return Reference(
        "emcube",
        "software",
        f"emcube {version}",
        {
            "author": AUTHORS,
            "title": TITLE,
            "version": version,
            "year": year,
            "license": LICENSE,
        },
    )


def references_of(
    steps: Iterable[tuple[str, Mapping[str, Any]]], version: str, year: str
) -> list[Reference]:
    """References of an analysis, emcube first, each once.

    Parameters
    ----------
    steps : iterable of (str, mapping)
        Verb of each step, and the attributes of its node in the result.
    version, year : str
        Of emcube and of the run.
    """
    found = [emcube_reference(version, year)]
    for verb, attributes in steps:
        found += _of_step(verb, attributes)
    return list({reference.key: reference for reference in [*found, *_SHARED]}.values())


def _of_step(verb: str, attributes: Mapping[str, Any]) -> list[Reference]:
    """What one step stands on."""
    parameters = attributes.get("parameters") or {}
    if verb == "estimate_n_components":
        return [_LANDA] if attributes.get("method") == "biwhitening" else []
    if verb == "survey_n_components":
        return [_LANDA, _NEUFELD]
    if verb == "pca":
        weights = [_KEENAN] if attributes.get("noise") == "poisson" else []
        return weights + ([_HALKO] if attributes.get("solver") == "randomized" else [])
    if verb == "nmf":
        return [_LEE, _LEPLAT] if parameters.get("volume") else [_LEE]
    if verb == "mcr":
        return [_MCR, *([_KEENAN] if attributes.get("noise") == "poisson" else [])]
    if verb == "bayesian_unmixing":
        counts = attributes.get("likelihood") == "gamma-poisson"
        return [_CEMGIL if counts else _DOBIGEON, _VEHTARI]
    if verb in ("ica", "varimax"):
        weights = [_KEENAN] if attributes.get("noise") == "poisson" else []
        return [_ICA if verb == "ica" else _KAISER, *weights]
    if verb in _ENDMEMBERS:
        weights = [_KEENAN] if attributes.get("loadings_by") == "poisson" else [_FCLS]
        return [*_ENDMEMBERS[verb], *weights]
    if verb == "kmeans":
        return [_BACHEM] + ([_KEENAN] if attributes.get("features") == "profiles" else [])
    if verb == "gaussian_mixture":
        weighted = attributes.get("features") == "profiles"
        return [_DEMPSTER, *([_KEENAN, _GEBRU] if weighted else [])]
    if verb == "poisson_mixture":
        return [_DEMPSTER]
    if verb == "cluster_quality":
        return [_ROUSSEEUW, _HENNIG]
    if verb == "phase_fractions":
        return [_FLYVBJERG]
    if verb == "uncertainty":
        resampled = attributes.get("method") in ("bootstrap", "area")
        return [_TAULER, *([_EFRON] if resampled else [])]
    return []


def dataset_reference(metadata: Mapping[str, Any]) -> Reference | None:
    """How the data are cited, where a catalog entry says enough: a title, and a DOI or an address.

    Parameters
    ----------
    metadata : mapping
        Of the entry: ``title``, ``doi``, ``creators`` (texts or mappings with a ``name``), ``url``, ``year``
        or ``published``, ``license``.
    """
    title, doi = metadata.get("title"), metadata.get("doi")
    url = metadata.get("url")
    if not title or not (doi or url):
        return None
    names = [c.get("name") if isinstance(c, Mapping) else c for c in metadata.get("creators") or ()]
    year = str(metadata.get("year") or metadata.get("published") or "")[:4]
    given = {
        "author": " and ".join(str(name) for name in names if name),
        "title": str(title),
        "year": year,
        "doi": "" if doi is None else str(doi).removeprefix("https://doi.org/"),
        "url": "" if url is None else str(url),
    }
    return Reference("data", "dataset", str(title), {k: v for k, v in given.items() if v})


def bibliography(references: Iterable[Reference]) -> bytes:
    """Write references as BibTeX."""
    return "\n".join(reference.to_bibtex() for reference in references).encode("utf-8")


def software_citation(version: str) -> bytes:
    """CITATION.cff of a version of emcube; the file of the same name in its repository says the same."""
    return f"""\
cff-version: 1.2.0
message: If emcube served your work, please cite it as below, and the papers of the methods that you used.
title: "{TITLE}"
type: software
authors:
  - name: {AUTHORS}
version: {version}
license: {LICENSE}
keywords:
  - electron microscopy
  - EDS
  - EELS
  - 4D-STEM
  - spectral unmixing
  - non-negative matrix factorization
  - principal component analysis
""".encode()
