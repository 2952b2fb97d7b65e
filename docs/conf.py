"""How Sphinx makes the pages; ``make docs`` runs it, and decision 0023 says why it is so.

The source folder is the repository itself, so that links between pages, notebooks and other files are the
same here and where the repository is read.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))

import emcube  # noqa: E402 (after the path of our own extensions)

project = "emcube"
author = "The emcube developers"
project_copyright = "The emcube developers, BSD 3-Clause"
release = version = emcube.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    # Of our own, in docs/_ext.
    "mathml",
    "page_order",
    "public_names",
    "command_line",
    "recipe_keys",
    "built_pages",
]

# --- sources -----------------------------------------------------------------------------------

PAGES = ("docs", "notebooks", "benchmarks", "CONTRIBUTING.md", "CHANGELOG.md")
FIGURES = tuple(
    f"benchmarks/results/{name}"
    for name in ("full", "floors", "methods", "truth", "calibration", "bayes", "peers")
)
include_patterns = [
    "docs/**",
    "notebooks/*.ipynb",
    *(f"{page}.md" for page in FIGURES),
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
# Whatever else lies in the folder (environments, builds, data) is not even looked at.
exclude_patterns = [
    *(entry.name for entry in ROOT.iterdir() if entry.name not in PAGES),
    "docs/decisions/0000-template.md",
    "docs/_*",
    "**/.ipynb_checkpoints",
]
root_doc = "docs/index"
templates_path = [str(HERE / "_templates")]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_dmath_allow_digits = False
myst_heading_anchors = 4
# Notebooks are run by the tests and kept with their outputs.
nb_execution_mode = "off"
nb_merge_streams = True

# --- docstrings --------------------------------------------------------------------------------

autosummary_generate = False  # public_names says which
autodoc_typehints = "none"  # numpydoc's sections say it in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
default_role = "py:obj"

nitpicky = True
# Names of ours must exist (public_names sees to it); parameters and names of other libraries are words.
nitpick_ignore_regex = [("py:.*", r"(?!emcube\.).*")]

# --- looks -------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "emcube"
html_static_path = ["_static"]
html_css_files = ["emcube.css"]
html_favicon = "_static/logo.svg"
html_copy_source = False
# From disk a page may not read others, which summaries would need.
html_show_search_summary = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_context = {"default_mode": "auto"}
html_sidebars = {"docs/index": []}
html_theme_options = {
    "logo": {"text": "emcube", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": {
        "**": ["page-toc"],
        "docs/index": [],
        # Wide tables.
        "docs/comparison": [],
        **{page: [] for page in FIGURES},
    },
    "show_toc_level": 2,
    "show_nav_level": 1,
    "navigation_depth": 3,
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
