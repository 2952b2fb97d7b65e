"""What to cite: the software, and the papers of the methods that a result used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emcube.results import Result

__all__ = ["Reference", "bibtex", "references_of"]


@dataclass(frozen=True)
class Reference:
    """A paper: what it is cited for, and where it is."""

    what: str
    authors: str
    title: str
    place: str
    doi: str

    @property
    def address(self) -> str:
        """Address that stays."""
        return f"https://doi.org/{self.doi}"


_BIWHITENING = Reference(
    "number of components",
    "B. Landa, T. T. C. K. Zhang, Y. Kluger",
    "Biwhitening reveals the rank of a count matrix",
    "SIAM Journal on Mathematics of Data Science 4 (2022) 1420",
    "10.1137/21M1456807",
)
_HORN = Reference(
    "number of components (parallel analysis)",
    "J. L. Horn",
    "A rationale and test for the number of factors in factor analysis",
    "Psychometrika 30 (1965) 179",
    "10.1007/BF02289447",
)
_NEUFELD = Reference(
    "number of components (held-out counts)",
    "A. Neufeld, A. Dharamshi, L. L. Gao, D. Witten",
    "Data thinning for convolution-closed distributions",
    "Journal of Machine Learning Research 25 (2024) 57",
    "10.48550/arXiv.2301.07276",
)
_E562 = Reference(
    "fields of view that are needed",
    "ASTM International",
    "Standard test method for determining volume fraction by systematic manual point count",
    "ASTM E562-19 (2019)",
    "10.1520/E0562-19",
)
_FLYVBJERG = Reference(
    "variance of a finite area",
    "H. Flyvbjerg, H. G. Petersen",
    "Error estimates on averages of correlated data",
    "Journal of Chemical Physics 91 (1989) 461",
    "10.1063/1.457480",
)
_KEENAN = Reference(
    "weights for counting noise",
    "M. R. Keenan, P. G. Kotula",
    "Accounting for Poisson noise in the multivariate analysis of ToF-SIMS spectrum images",
    "Surface and Interface Analysis 36 (2004) 203",
    "10.1002/sia.1657",
)
_HALKO = Reference(
    "randomized principal components",
    "N. Halko, P. G. Martinsson, J. A. Tropp",
    "Finding structure with randomness: probabilistic algorithms for constructing approximate matrix "
    "decompositions",
    "SIAM Review 53 (2011) 217",
    "10.1137/090771806",
)
_LEE = Reference(
    "non-negative matrix factorization",
    "D. D. Lee, H. S. Seung",
    "Learning the parts of objects by non-negative matrix factorization",
    "Nature 401 (1999) 788",
    "10.1038/44565",
)
_LEPLAT = Reference(
    "minimum-volume term",
    "V. Leplat, N. Gillis, A. M. S. Ang",
    "Blind audio source separation with minimum-volume beta-divergence NMF",
    "IEEE Transactions on Signal Processing 68 (2020) 3400",
    "10.1109/TSP.2020.2991801",
)
_LLOYD = Reference(
    "k-means",
    "S. P. Lloyd",
    "Least squares quantization in PCM",
    "IEEE Transactions on Information Theory 28 (1982) 129",
    "10.1109/TIT.1982.1056489",
)
_BACHEM = Reference(
    "k-means on a weighted sample",
    "O. Bachem, M. Lucic, A. Krause",
    "Scalable k-means clustering via lightweight coresets",
    "Proceedings of KDD 2018, 1119",
    "10.1145/3219819.3219973",
)


_DEMPSTER = Reference(
    "mixtures by expectation and maximization",
    "A. P. Dempster, N. M. Laird, D. B. Rubin",
    "Maximum likelihood from incomplete data via the EM algorithm",
    "Journal of the Royal Statistical Society B 39 (1977) 1",
    "10.1111/j.2517-6161.1977.tb01600.x",
)
_GEBRU = Reference(
    "Gaussian mixtures of weighted pixels",
    "I. D. Gebru, X. Alameda-Pineda, F. Forbes, R. Horaud",
    "EM algorithms for weighted-data clustering with application to audio-visual scene analysis",
    "IEEE Transactions on Pattern Analysis and Machine Intelligence 38 (2016) 2402",
    "10.1109/TPAMI.2016.2522425",
)
_HENNIG = Reference(
    "stability of clusters",
    "C. Hennig",
    "Cluster-wise assessment of cluster stability",
    "Computational Statistics & Data Analysis 52 (2007) 258",
    "10.1016/j.csda.2006.11.025",
)
_ROUSSEEUW = Reference(
    "silhouettes",
    "P. J. Rousseeuw",
    "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis",
    "Journal of Computational and Applied Mathematics 20 (1987) 53",
    "10.1016/0377-0427(87)90125-7",
)
_SCHWARZ = Reference(
    "Bayesian information criterion",
    "G. Schwarz",
    "Estimating the dimension of a model",
    "The Annals of Statistics 6 (1978) 461",
    "10.1214/aos/1176344136",
)
_ICA = Reference(
    "independent component analysis",
    "A. Hyvärinen, E. Oja",
    "Independent component analysis: algorithms and applications",
    "Neural Networks 13 (2000) 411",
    "10.1016/S0893-6080(00)00026-5",
)
_KAISER = Reference(
    "varimax rotation",
    "H. F. Kaiser",
    "The varimax criterion for analytic rotation in factor analysis",
    "Psychometrika 23 (1958) 187",
    "10.1007/BF02289233",
)
_KEENAN_2009 = Reference(
    "rotation in the spatial domain",
    "M. R. Keenan",
    "Exploiting spatial-domain simplicity in spectral image analysis",
    "Surface and Interface Analysis 41 (2009) 79",
    "10.1002/sia.2949",
)
_MCR = Reference(
    "multivariate curve resolution by alternating least squares",
    "R. Tauler",
    "Multivariate curve resolution applied to second order data",
    "Chemometrics and Intelligent Laboratory Systems 30 (1995) 133",
    "10.1016/0169-7439(95)00047-X",
)
_GIBBS = {
    "gamma-poisson": Reference(
        "Bayesian unmixing of counts",
        "A. T. Cemgil",
        "Bayesian inference for nonnegative matrix factorisation models",
        "Computational Intelligence and Neuroscience 2009, 785152",
        "10.1155/2009/785152",
    ),
    "gaussian": Reference(
        "Bayesian unmixing",
        "N. Dobigeon, S. Moussaoui, M. Coulon, J.-Y. Tourneret, A. O. Hero",
        "Joint Bayesian endmember extraction and linear unmixing for hyperspectral imagery",
        "IEEE Transactions on Signal Processing 57 (2009) 4355",
        "10.1109/TSP.2009.2025797",
    ),
}
_VEHTARI = Reference(
    "R-hat and effective sample size",
    "A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner",
    "Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC",
    "Bayesian Analysis 16 (2021) 667",
    "10.1214/20-BA1221",
)
_UNIMODAL = Reference(
    "unimodality",
    "R. Bro, N. D. Sidiropoulos",
    "Least squares algorithms under unimodality and non-negativity constraints",
    "Journal of Chemometrics 12 (1998) 223",
    "10.1002/(SICI)1099-128X(199807/08)12:4<223::AID-CEM511>3.0.CO;2-2",
)
_VCA = Reference(
    "vertex component analysis",
    "J. M. P. Nascimento, J. M. Bioucas-Dias",
    "Vertex component analysis: a fast algorithm to unmix hyperspectral data",
    "IEEE Transactions on Geoscience and Remote Sensing 43 (2005) 898",
    "10.1109/TGRS.2005.844293",
)
_SMOOTHED = Reference(
    "corners as means of several pixels",
    "N. Nadisic, N. Gillis, C. Kervazo",
    "Smoothed separable nonnegative matrix factorization",
    "Linear Algebra and its Applications 676 (2023) 174",
    "10.1016/j.laa.2023.07.013",
)
_NFINDR = Reference(
    "N-FINDR",
    "M. E. Winter",
    "N-FINDR: an algorithm for fast autonomous spectral end-member determination in hyperspectral data",
    "Proceedings of SPIE 3753 (1999) 266",
    "10.1117/12.366289",
)
_SISAL = Reference(
    "SISAL and MVSA",
    "J. Li, A. Agathos, D. Zaharie, J. M. Bioucas-Dias, A. Plaza, X. Li",
    "Minimum volume simplex analysis: a fast algorithm for linear hyperspectral unmixing",
    "IEEE Transactions on Geoscience and Remote Sensing 53 (2015) 5067",
    "10.1109/TGRS.2015.2417162",
)
_FCLS = Reference(
    "fully constrained least squares",
    "D. C. Heinz, C.-I. Chang",
    "Fully constrained least squares linear spectral mixture analysis method for material quantification "
    "in hyperspectral imagery",
    "IEEE Transactions on Geoscience and Remote Sensing 39 (2001) 529",
    "10.1109/36.911111",
)
_ENDMEMBERS = {"vca": [_VCA, _SMOOTHED], "nfindr": [_NFINDR, _VCA, _SMOOTHED]}
_ENDMEMBERS["sisal"] = [_SISAL, _NFINDR, _SMOOTHED]
_EFRON = Reference(
    "bootstrap",
    "B. Efron",
    "Bootstrap methods: another look at the jackknife",
    "Annals of Statistics 7 (1979) 1",
    "10.1214/aos/1176344552",
)
_TAULER = Reference(
    "rotational freedom (MCR-BANDS)",
    "R. Tauler",
    "Calculation of maximum and minimum band boundaries of feasible solutions for species "
    "profiles obtained by "
    "multivariate curve resolution",
    "Journal of Chemometrics 15 (2001) 627",
    "10.1002/cem.667",
)


def references_of(result: Result) -> list[Reference]:
    """Papers of the methods that a result used, in the order of its steps, each once."""
    found: list[Reference] = []
    for step in result.steps:
        attributes = result[step].attrs
        parameters = attributes["parameters"]
        verb = result.verb(step)
        if verb == "estimate_n_components":
            found += {"biwhitening": [_BIWHITENING], "parallel": [_HORN]}.get(
                attributes["method"], []
            )
        elif verb == "survey_n_components":
            found += [_BIWHITENING, _HORN, _NEUFELD]
        elif verb == "pca":
            found += [_KEENAN] if attributes["noise"] == "poisson" else []
            found += [_HALKO] if attributes["solver"] == "randomized" else []
        elif verb == "nmf":
            found += [_LEE, *([_LEPLAT] if parameters["volume"] else [])]
        elif verb == "mcr":
            found += [_MCR, *([_UNIMODAL] if parameters["unimodal"] else [])]
            found += [_FCLS] if parameters["closure"] else []
            found += [_KEENAN] if attributes["noise"] == "poisson" else []
        elif verb == "bayesian_unmixing":
            found += [_GIBBS[attributes["likelihood"]], _VEHTARI]
        elif verb in ("ica", "varimax"):
            found += [_ICA] if verb == "ica" else [_KAISER]
            spatial = verb == "varimax" and attributes["domain"] == "spatial"
            found += [_KEENAN_2009] if spatial else []
            found += [_KEENAN] if attributes["noise"] == "poisson" else []
        elif verb in _ENDMEMBERS:
            found += _ENDMEMBERS[verb]
            found += [_FCLS] if attributes["loadings_by"] == "fcls" else []
        elif verb == "kmeans":
            found += [_LLOYD, _BACHEM]
            found += [_KEENAN] if attributes["features"] == "profiles" else []
        elif verb in ("gaussian_mixture", "poisson_mixture"):
            found += [_DEMPSTER, _SCHWARZ]
            found += [_KEENAN, _GEBRU] if attributes.get("features") == "profiles" else []
        elif verb == "cluster_quality":
            found += [_ROUSSEEUW, _HENNIG]
        elif verb == "phase_fractions":
            found += [_E562, _FLYVBJERG]
        elif verb == "uncertainty":
            found += [_TAULER]
            found += [_EFRON] if attributes["method"] in ("bootstrap", "area") else []
    return list(dict.fromkeys(found))


def bibtex(version: str) -> str:
    """BibTeX entry of this software."""
    return (
        "@software{emcube,\n"
        "  author  = {{The emcube developers}},\n"
        "  title   = {{emcube: unmixing electron-microscopy datacubes that are larger than memory}},\n"
        f"  version = {{{version}}},\n"
        "}"
    )
