"""SVG primitives: each returns a string, the same for the same arguments."""

from typing import Any
from xml.sax.saxutils import escape, quoteattr


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def element(tag: str, *content: str, **attributes: Any) -> str:
    """<tag …>content</tag>. An underscore in a name is a hyphen, a trailing one is dropped; None leaves it out."""
    shown = [
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(number(v) if isinstance(v, float) else str(v))}"
        for name, v in attributes.items()
        if v is not None
    ]
    return f"<{tag}{''.join(shown)}>{''.join(content)}</{tag}>" if content else f"<{tag}{''.join(shown)}/>"


def rect(x: float, y: float, width: float, height: float, **attributes: Any) -> str:
    """A rectangle whose upper left corner is (x, y)."""
    return element("rect", x=float(x), y=float(y), width=float(width), height=float(height), **attributes)


def text(x: float, y: float, content: str, **attributes: Any) -> str:
    """Text whose baseline starts at (x, y); class "mid" centres it, "end" ends it there."""
    return element("text", escape(content), x=float(x), y=float(y), **attributes)


def document(width: float, height: float, title: str, description: str, style: str, *body: str) -> str:
    """A standalone picture with its text alternative; `style` holds CSS rules for the class "shards"."""
    return element(
        "svg",
        element("title", escape(title)),
        element("desc", escape(description)),
        element("style", escape(style)) if style else "",
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=float(width),
        height=float(height),
        role="img",
        class_="shards",
    )
