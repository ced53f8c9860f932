// A question with radio buttons: the native control brings keyboard use and screen readers with it.
let count = 0;

function render({ model, el }) {
  const name = `course-prediction-${Date.now()}-${count++}`;
  const field = document.createElement("fieldset");
  field.className = "course-prediction";
  const legend = document.createElement("legend");
  legend.textContent = "Predict";
  const question = document.createElement("p");
  question.textContent = model.get("question");
  const said = document.createElement("p");
  said.className = "said";
  said.setAttribute("aria-live", "polite");
  field.append(legend, question);

  model.get("options").forEach((text, index) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "radio";
    input.name = name;
    input.checked = model.get("chosen") === index;
    input.setAttribute("data-lm-suppress-shortcuts", "true");
    input.addEventListener("change", () => {
      model.set("chosen", index);
      model.save_changes();
      show();
    });
    label.append(input, document.createTextNode(text));
    field.append(label);
  });

  function show() {
    said.textContent = model.get("chosen") < 0 ? "Choose one before you go on." : "Noted. Now run the next cell and see.";
  }
  show();
  field.append(said);
  el.append(field);
}

export default { render };
