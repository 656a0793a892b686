"""Writes equations as MathML, which browsers draw without a script.

Pages hold them as `$...$` and `$$...$$`, as GitHub reads them.
"""

import html
import re

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content, page, config, files):
    """Replaces the equations of a page (an event of MkDocs)."""
    from latex2mathml.converter import convert

    def mathml(display: str):
        return lambda match: convert(html.unescape(match[1]).strip(), display=display)

    return INLINE.sub(mathml("inline"), BLOCK.sub(mathml("block"), content))
