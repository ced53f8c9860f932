"""A picture alone on an empty page, with no Jupyter: its kernel is this very process; and what is seen of it."""

import base64
import json

from course_lib.viz.widget import Picture

# A model as anywidget gives it. What the reader chooses goes to `ask_python`, whose answer is the widget's new state.
MOUNT = """async ({state, block, alive}) => {
  const bytes = Uint8Array.from(atob(block), (c) => c.charCodeAt(0));
  const listeners = new Map();
  const all = {...state, _block: bytes};
  const fire = (name) => (listeners.get(`change:${name}`) ?? []).forEach((listener) => listener());
  const model = {
    get: (name) => all[name],
    set: (name, value) => { all[name] = value; fire(name); },
    on: (events, listener) => events.split(' ').forEach((e) => listeners.set(e, [...(listeners.get(e) ?? []), listener])),
    off: () => {},
    save_changes: async () => {
      if (!alive) throw new Error('the kernel is gone');
      const answer = await window.ask_python(all.choices, all.width);
      for (const [name, value] of Object.entries(answer)) if (JSON.stringify(all[name]) !== JSON.stringify(value)) model.set(name, value);
    },
  };
  const source = URL.createObjectURL(new Blob([state._esm], {type: 'text/javascript'}));
  const module = await import(source);
  document.body.innerHTML = '<div id="widget"></div>';
  window.widget = {model, state: all};
  await module.default.render({model, el: document.querySelector('#widget')});
}"""


def mount(page, widget: Picture, alive: bool = True):
    """The picture on an otherwise empty page, as it is now. alive: whether its kernel answers. `page.widget` is the Picture."""
    if not hasattr(page, "widget"):
        page.expose_function("ask_python", lambda choices, width: _answer(page.widget, choices, width))
    page.widget = widget
    page.goto("about:blank")
    names = ("_esm", "_picture", "_controls", "_ground", "_scene", "choices", "width")
    state = {name: getattr(widget, name) for name in names}
    block = base64.b64encode(widget._block).decode()
    page.evaluate(MOUNT, {"state": json.loads(json.dumps(state)), "block": block, "alive": alive})
    settle(page)
    return page.locator("#widget")


def _answer(widget, choices, width):
    if choices != widget.choices:
        widget.choices = choices
    if width != widget.width:
        widget.width = width
    return {"_ground": widget._ground, "_scene": widget._scene}


def settle(page):
    """Waits until what was chosen is painted."""
    page.wait_for_function("!document.querySelector('#widget').picture?.waits")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def choose(page, **changes):
    """What a click or a control does, without finding it first; returns when it is painted."""
    page.evaluate("changes => document.querySelector('#widget').picture.choose(changes)", changes)
    settle(page)


def control(widget, label):
    """The control with this label."""
    return widget.locator(".controls").get_by_label(label, exact=True)


def said(widget):
    """What the read-out says."""
    return widget.locator(".say").inner_text()


def texts(widget):
    """All texts in the panels."""
    return widget.locator(".stage text").all_text_contents()


def luminance(color):
    channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)
