"""A widget alone on an empty page, with no Jupyter and no kernel behind it; and what is seen of it."""

import json

import anywidget

# A model as anywidget gives it, with a kernel that is gone: telling it anything raises.
MOUNT = """async ({source, css, state}) => {
  const module = await import(URL.createObjectURL(new Blob([source], {type: 'text/javascript'})));
  const listeners = [];
  const model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; listeners.forEach((listener) => listener()); },
    on: (events, listener) => listeners.push(listener),
    off: () => {},
    save_changes: () => { throw new Error('the kernel is gone'); },
  };
  document.head.append(Object.assign(document.createElement('style'), {textContent: css}));
  document.body.innerHTML = '<div id="widget"></div>';
  window.widget = {model, state, module};
  module.default.render({model, el: document.querySelector('#widget')});
}"""

# What is seen of a picture: every visible rect and text with its class, place and content.
SEEN = """(svg) => [...svg.querySelectorAll('rect, text')]
  .filter((node) => !node.closest('[display=none]'))
  .map((node) => [
    node.tagName,
    `${node.parentNode.getAttribute('class')} ${node.getAttribute('class')}`.replaceAll(/ (faded|shown)/g, ''),
    ...['x', 'y', 'width', 'height'].map((name) => Math.round(10 * node.getAttribute(name)) / 10),
    node.textContent,
  ])"""


def mount(page, widget):
    """The widget on an otherwise empty page, in the state that it is in. On the page it is `widget.model` and `widget.module`."""
    names = set(widget.traits(sync=True)) - set(anywidget.AnyWidget.class_traits(sync=True))
    state = {name: getattr(widget, name) for name in names if not name.startswith("_")}
    page.goto("about:blank")
    sources = {"source": str(widget._esm), "css": str(widget._css)}
    page.evaluate(MOUNT, {**sources, "state": json.loads(json.dumps(state))})
    return page.locator("#widget")


def control(widget, label):
    """The control with this label."""
    return widget.locator(".controls").get_by_label(label, exact=True)


def state(page):
    """What the reader has chosen, of a widget that keeps it in one dict."""
    return page.evaluate("widget.state.state")


def close(got, want):
    """Equal but for the last digit of a coordinate: Python writes two decimals."""
    return len(got) == len(want) and all(
        a[:2] == b[:2]
        and a[6] == b[6]
        and all(abs(p - q) < 0.15 for p, q in zip(a[2:6], b[2:6], strict=True))
        for a, b in zip(got, want, strict=True)
    )


def luminance(color):
    channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)
