"""What the pictures of traces and collectives share: their colours, and how a notebook shows one that stands alone."""

import re
from functools import cache
from html import escape
from urllib.parse import quote

from course_lib.viz.shards import STATIC
from course_lib.viz.widgets import IN_URL

WIDTH, MARGIN = 800, 20


@cache
def joined(*names: str) -> str:
    """Files of the folder `static`, one after the other, as one text: a style sheet, or one JavaScript module."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


@cache
def standalone_style(*names: str) -> str:
    """The rules of CSS files with their light colours written in: a viewer that knows no CSS variables shows them too."""
    css = re.sub(r"/\*.*?\*/", "", joined(*names), flags=re.DOTALL)
    light = dict(re.findall(r"(--[\w-]+):\s*([^;]+);", css))
    rules = re.sub(r"\.shards \{\s*--[^}]*\}", "", css)
    rules = re.sub(r"var\((--[\w-]+)\)", lambda match: light[match[1]], rules)
    return re.sub(r"\s+", " ", rules).strip()


def image(svg: str, alt: str) -> str:
    """The picture as an <img>: JupyterLab shows it in a notebook that it does not trust yet, where it strips inline SVG."""
    url = quote(re.sub(r'="([^"\']*)"', r"='\1'", svg), safe=IN_URL)
    alt = escape(alt.replace("\n", "; "), quote=True)
    return f'<img alt="{alt}" style="max-width: 100%" src="data:image/svg+xml,{url}">'
