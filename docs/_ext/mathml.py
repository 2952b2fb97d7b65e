"""Equations as MathML, which browsers draw by themselves: no script, no fonts or pictures from elsewhere.

The translation is that of docutils, which Sphinx stands on.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)


def _mathml(node: nodes.Element, *, block: bool) -> str:
    """Translate one equation; one that cannot be is a warning, and stays as it was written."""
    text = node.astext()
    try:
        return str(tex2mathml(text, as_block=block))
    except MathError as error:
        logger.warning("equation %r: %s", text, error, location=node, type="mathml")
        return f"<code>{text}</code>"


def visit_math(self: Any, node: nodes.math) -> None:
    """Write an equation in a line."""
    self.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    """Write an equation of its own, with its number where it has one."""
    self.body.append(self.starttag(node, "div", CLASS="equation", tabindex="0"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})</span>')
    self.body.append(_mathml(node, block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
