"""Mends links that leave docs/, which work in a checkout but not on the site.

A link to a module of the package leads to its place in the reference. A picture or a page of HTML
is copied into the site. A link to any other file of the repository becomes its text.
"""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
COPIED = {".png", ".gif", ".svg", ".html"}

LINK = re.compile(
    r"(?P<text>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)"
)
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files, config):
    """Copies the pictures and reports of other folders that pages show (an event of MkDocs)."""
    from mkdocs.structure.files import File

    for page in [page for page in files if page.src_uri.endswith(".md")]:
        for match in LINK.finditer(page.content_string):
            target = outside(page.src_uri, match["target"])
            if target and target.suffix in COPIED and not files.get_file_from_path(copied(target)):
                files.append(File.generated(config, copied(target), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Mends the links of a page (an event of MkDocs)."""
    return mended(markdown, page.file.src_uri)


def mended(markdown: str, page: str) -> str:
    """Returns a page's text with links that work on the site.

    Args:
        markdown: text of the page.
        page: path of the page in docs/.
    """
    # The odd pieces are blocks of code.
    pieces = FENCED.split(markdown)
    pieces[::2] = [LINK.sub(lambda match: _mended(match, page), text) for text in pieces[::2]]
    return "".join(pieces)


def _mended(match: re.Match, page: str) -> str:
    text, anchor = match["text"], match["anchor"] or ""
    if page == "index.md" and match["target"].startswith("docs/"):
        return f"{text}({match['target'].removeprefix('docs/')}{anchor})"
    target = outside(page, match["target"])
    if target is None:
        return match[0]
    if target.suffix in COPIED:
        return f"{text}({_relative(copied(target), page)})"
    parts = target.relative_to(ROOT).with_suffix("").parts
    if target.suffix == ".py" and parts[0] == "stunet" and len(parts) > 2:
        return f"{text}({_relative(f'reference/api/{parts[1]}.md', page)}#{'.'.join(parts)})"
    return text[1:-1]


def outside(page: str, target: str) -> pathlib.Path | None:
    """Returns the file outside docs/, or the notebook in it, that a link leads to, or None."""
    if "://" in target:
        return None
    # The first page is the README, whose links are relative to the folder above.
    folder = ROOT if page == "index.md" else (DOCS / page).parent
    path = pathlib.Path(os.path.normpath(folder / target))
    if not path.exists() or (path.is_relative_to(DOCS) and path.suffix != ".ipynb"):
        return None
    return path


def copied(target: pathlib.Path) -> str:
    """Returns where on the site a file of another folder is copied to."""
    return target.relative_to(ROOT).as_posix()


def _relative(path: str, page: str) -> str:
    return os.path.relpath(path, os.path.dirname(page) or ".")
