"""Formulas as MathML: every browser shows them, and the pages need no internet."""

from html import escape

from latex2mathml.converter import convert


def _formula(text: str, display: str) -> str:
    return convert(text.strip(), display=display)


def _inline(self, node):
    self.body.append(f'<span class="math notranslate nohighlight">{_formula(node.astext(), "inline")}</span>')
    raise _skip()


def _block(self, node):
    number = ""
    if node.get("number"):
        anchor = f"equation-{node['label']}" if node.get("label") else ""
        number = f'<span class="eqno" id="{escape(anchor)}">({node["number"]})</span>'
    self.body.append(f'<div class="math notranslate nohighlight">{number}{_formula(node.astext(), "block")}</div>\n')
    raise _skip()


def _skip():
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app):
    """Offer the renderer to Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
