"""A catalog as one folder of static files: a page with a search box, thumbnails, and JSON-LD for search
engines.

The list is plain HTML that needs no script; a few lines of script filter it. Everything that a catalog
says is escaped: metadata are text, never markup.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.catalog.document import writing
from emcube.catalog.exports import GENERATOR, check_destination, to_schema_org, write_json
from emcube.catalog.search import search_text
from emcube.disk import replace_file
from emcube.errors import CatalogError, EmcubeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from emcube.catalog.model import Catalog, Entry

__all__ = ["write_page"]

#: Nothing from elsewhere, whatever a catalog says.
_POLICY = "default-src 'none';img-src 'self';style-src 'unsafe-inline';script-src 'unsafe-inline'"

_STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:1rem;
color:#1a1a1a;background:#fff}
#q{font:inherit;width:100%;box-sizing:border-box;padding:.6rem .8rem;border:2px solid #0b5a8f;
border-radius:.4rem}
ul{list-style:none;padding:0}
li{display:grid;grid-template-columns:8rem 1fr;gap:1rem;padding:1rem 0;border-top:1px solid #ccc}
li[hidden]{display:none}
img,.none{width:8rem;height:8rem;object-fit:contain;background:#eee;image-rendering:pixelated}
h2{margin:0;font-size:1.1rem}.name{margin:0;color:#555;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem;margin:.4rem 0}
dt{color:#555}dd{margin:0;overflow-wrap:anywhere}code{background:#f2f2f2;padding:.1rem .3rem}
@media(max-width:40rem){li{grid-template-columns:1fr}}
"""

_SCRIPT = """\
const box=document.getElementById("q"),rows=[...document.querySelectorAll("li[data-text]")],
count=document.getElementById("count");
function find(){const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
for(const row of rows){const on=words.every(w=>row.dataset.text.includes(w));row.hidden=!on;n+=on}
count.textContent=n+" of "+rows.length+" datasets"}
box.addEventListener("input",find);
const asked=new URLSearchParams(location.search).get("q");if(asked){box.value=asked}find();
"""

#: Field, its name for people.
_ROWS = (
    ("description", "about"),
    ("modality", "modality"),
    ("elements", "elements"),
    ("beam_energy_keV", "beam energy, keV"),
    ("specimen", "specimen"),
    ("instrument", "instrument"),
    ("acquired", "acquired"),
    ("creators", "by"),
    ("license", "licence"),
    ("access", "access"),
    ("checksum", "checksum"),
    ("digest", "digest"),
)


def write_page(
    catalog: Catalog,
    folder: Path,
    *,
    thumbnails: bool = True,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a catalog as a static page.

    Parameters
    ----------
    catalog : Catalog
    folder : Path
        Made if it does not exist; ``index.html``, ``datasets.jsonld`` and ``thumbnails/`` of an earlier
        export in it are replaced.
    thumbnails : bool
        Show the total counts that stores keep; of stores on this machine and of fetched data.
    overwrite : bool
        Replace files of these names that emcube did not write, too.
    progress : callable, optional
        Gets the number of entries done and of all.

    Returns
    -------
    Path
        The page, ``index.html``.

    Raises
    ------
    CatalogError
        The folder is a file, within a store, or holds files of these names that are no earlier export; or
        it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise CatalogError(
            f"cannot write the page of {catalog.path}: {folder} is a file, expected a folder",
            hint="name another place",
        )
    page, described = folder / "index.html", folder / "datasets.jsonld"
    for one in (page, described):
        check_destination(one, catalog, overwrite=overwrite)
    _check_pictures(folder / "thumbnails", page, overwrite=overwrite)
    with writing(folder, f"the page {page}"):
        rows = []
        for n, (name, entry) in enumerate(catalog.items()):
            picture = _thumbnail(entry, folder / "thumbnails", n) if thumbnails else None
            rows.append(_row(name, entry, picture))
            if progress is not None:
                progress(n + 1, len(catalog))
        linked = to_schema_org(catalog)
        write_json(linked, described, catalog, overwrite=overwrite)
        replace_file(page.resolve(), _page(catalog, rows, linked).encode("utf-8"))
    return page


def _check_pictures(folder: Path, page: Path, *, overwrite: bool) -> None:
    if folder.exists() and not page.exists() and not overwrite:
        raise CatalogError(
            f"cannot write the page {page}: there is {folder.name!r} already, but no earlier export",
            hint="name another place, or replace its pictures with --overwrite (overwrite=True)",
        )


def _page(catalog: Catalog, rows: list[str], linked: dict[str, Any]) -> str:
    title = html.escape(str(catalog.metadata.get("title") or Path(str(catalog.path)).stem))
    about = html.escape(str(catalog.metadata.get("description") or ""))
    # "</script>" within a text must not end the element.
    data = json.dumps(linked, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
{GENERATOR}
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{title}</title><style>{_STYLE}</style>
<script type="application/ld+json">{data}</script></head>
<body><h1>{title}</h1><p>{about}</p>
<label for="q">Search by words, elements, modality, instrument</label>
<input id="q" type="search" autocomplete="off"><p id="count" aria-live="polite">{len(rows)} datasets</p>
<ul>
{chr(10).join(rows)}
</ul>
<script>{_SCRIPT}</script></body></html>
"""


def _row(name: str, entry: Entry, picture: str | None) -> str:
    metadata = entry.metadata
    said = str(metadata.get("title") or name)
    title = html.escape(said)
    doi = metadata.get("doi")
    if isinstance(doi, str) and doi.startswith("10."):
        title = f'<a href="https://doi.org/{html.escape(doi, quote=True)}">{title}</a>'
    # Files of one maker often have one title: the name tells them apart.
    named = "" if said == name else f'<p class="name">{html.escape(name)}</p>'
    image = (
        f'<img src="{html.escape(picture, quote=True)}" alt="total counts" loading="lazy">'
        if picture
        else '<div class="none"></div>'
    )
    shape = metadata.get("shape")
    dims = metadata.get("dims")
    facts = [(label, _text(metadata.get(key))) for key, label in _ROWS]
    if isinstance(shape, list) and isinstance(dims, list):
        facts.append(("shape", ", ".join(f"{d} {n}" for d, n in zip(dims, shape, strict=False))))
    listed = "".join(
        f"<dt>{label}</dt><dd>{html.escape(text)}</dd>" for label, text in facts if text
    )
    words = html.escape(" ".join(search_text(name, metadata).split()), quote=True)
    call = html.escape(f'em.open("{Path(str(entry.catalog)).name}:{name}")')
    return (
        f'<li data-text="{words}">{image}<div><h2>{title}</h2>{named}<dl>{listed}</dl>'
        f"<code>{call}</code></div></li>"
    )


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(
            str(one.get("name", "")) if isinstance(one, dict) else str(one) for one in value
        )
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _thumbnail(entry: Entry, folder: Path, n: int) -> str | None:
    """Picture of the total counts; None where the data keep none or are not here."""
    try:
        image = _quicklook(entry)
    except (EmcubeError, OSError):
        # The page lists what there is; `emcube catalog verify` tells what does not open.
        return None
    if image is None:
        return None
    from io import BytesIO

    import matplotlib.image

    folder.mkdir(exist_ok=True)
    buffer = BytesIO()
    matplotlib.image.imsave(buffer, image, format="png", cmap="viridis")
    name = f"{n:05d}.png"
    replace_file(folder / name, buffer.getvalue())
    return f"{folder.name}/{name}"


def _quicklook(entry: Entry) -> NDArray[np.float64] | None:
    """Total counts with two dims, of some hundred pixels where the store keeps such a size."""
    import numpy as np

    from emcube.store import is_store, is_url, open_cube
    from emcube.store.quicklook import TOTAL_COUNTS

    if entry.kind == "catalog" or not entry.available:
        return None
    place = entry.location()
    if is_url(place) or not is_store(place):
        return None
    # Halved again and again down to 64 pixels: the last but one has up to 128.
    found = [path.parent.name for path in Path(place).glob(f"{TOTAL_COUNTS}_*/zarr.json")]
    levels = sorted(int(name.rpartition("_")[2]) for name in found)
    chosen = f"{TOTAL_COUNTS}_{levels[-2]}" if len(levels) > 1 else TOTAL_COUNTS
    image = np.asarray(open_cube(place, chosen).values, dtype=np.float64)
    while image.ndim > 2:
        # Of a series the middle one: the first and last of a tilt series are the worst.
        image = image[image.shape[0] // 2]
    return image if image.ndim == 2 else None
