// What every widget with controls makes its page of. Joined in front of the widget's own files.

const guarded = (node) => {
  node.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab takes the keys
  return node;
};
const make = (tag, properties = {}, ...content) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...content);
  return node;
};
