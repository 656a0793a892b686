"""Makes HTML from templates, and escapes every value that is not HTML already.

HTML has the type `Markup`. Every other value, such as a name from a file, is plain text.
`Markup.join` joins HTML and escapes plain text among it. `str.join` would return plain text.
"""

import functools
from collections.abc import Iterable

import jinja2
from markupsafe import Markup

# A template that needs a value which is not given fails, instead of leaving it out.
_ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)
_compiled = functools.cache(_ENVIRONMENT.from_string)


def fill(template: str, **values: object) -> Markup:
    """Returns the HTML of a Jinja template, with values escaped unless they are `Markup`.

    Args:
        template: HTML in which `{{ name }}` stands for a value. It must be a constant of the
            program, because it is not escaped.
        values: the values by name.
    """
    return Markup(_compiled(template).render(values))


def element(name: str, content: object = None, **attributes: object) -> Markup:
    """Returns an element of HTML or SVG.

    Args:
        name: name of the element, such as "line".
        content: text or `Markup` inside the element; None for an element without content.
        attributes: attributes of the element, in this order. `class_` stands for `class`.
    """
    attributes = {key.rstrip("_"): value for key, value in attributes.items()}
    template = (
        "<{{ name }}{{ attributes|xmlattr }}"
        "{% if content is none %}/>{% else %}>{{ content }}</{{ name }}>{% endif %}"
    )
    return fill(template, name=name, content=content, attributes=attributes)


def join(pieces: Iterable[object], between: str = "") -> Markup:
    """Joins pieces, with `between` between them. Escapes pieces that are not `Markup`."""
    return Markup(between).join(pieces)
