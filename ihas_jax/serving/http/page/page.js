"use strict";

const MOST_SQUARES = 32;
const OTHER = "other";
const byId = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// the inputs of a field, and a function that reads its value: text, or null where it is missing
function inputOf(field, number) {
  const id = `field_${number}`;
  if (field.values.length === 0) {
    const input = make("input", { id, type: "text", inputMode: "decimal", placeholder: "missing" });
    return { inputs: [input], read: () => (input.value.trim() === "" ? null : input.value.trim()) };
  }
  const shown = field.values.map((value, place) =>
    make("option", { value: String(place), textContent: value === "" ? "(empty)" : value }));
  const select = make("select", { id }, ...shown,
    make("option", { value: "missing", textContent: "(missing)" }),
    make("option", { value: OTHER, textContent: "another value…" }));
  const text = make("input", { type: "text", className: "other", hidden: true, ariaLabel: `another value of ${field.name}` });
  select.addEventListener("change", () => { text.hidden = select.value !== OTHER; });
  const read = () => {
    if (select.value === OTHER) return text.value;
    return select.value === "missing" ? null : field.values[Number(select.value)];
  };
  return { inputs: [select, text], read };
}

function drawKept(cell, kept, dim) {
  cell.replaceChildren();
  if (dim <= MOST_SQUARES) {
    const on = new Set(kept);
    for (let n = 0; n < dim; n += 1) cell.append(make("i", { className: on.has(n) ? "on" : "" }));
  }
  cell.append(` ${kept.length} of ${dim}`);
}

async function start() {
  const model = await (await fetch("/model")).json();
  byId("about").textContent = `${model.model} (${model.method}), `
    + `${model.parameters.toLocaleString("en")} parameters, ${model.fields.length} fields`;
  const rows = model.fields.map((field, number) => {
    const { inputs, read } = inputOf(field, number);
    const cell = make("td", { className: "kept" });
    byId("fields").append(make("tr", {},
      make("td", {}, make("label", { htmlFor: `field_${number}`, textContent: field.name })),
      make("td", {}, ...inputs), cell));
    return { name: field.name, read, cell };
  });
  const show = (cluster) => rows.forEach(({ cell }, n) => drawKept(cell, model.kept[cluster][n], model.dim));

  async function predict() {
    const row = Object.fromEntries(rows.map(({ name, read }) => [name, read()]));
    const response = await fetch("/predict", { method: "POST", body: JSON.stringify(row) });
    const found = await response.json();
    byId("error").hidden = response.ok;
    byId("error").textContent = response.ok ? "" : found.error;
    byId("probability").textContent = response.ok ? found.probability.toFixed(4) : "–";
    byId("routed").hidden = !response.ok || found.cluster === undefined;
    byId("cluster").textContent = response.ok && found.cluster !== undefined ? found.cluster : "–";
    if (response.ok) show(found.cluster ?? 0);
  }

  byId("row").addEventListener("submit", (event) => { event.preventDefault(); predict().catch(fail); });
  byId("fields").addEventListener("change", () => predict().catch(fail));
  await predict();
  document.body.dataset.ready = "true";
}

function fail(error) {
  byId("probability").textContent = "–";
  byId("error").hidden = false;
  byId("error").textContent = `The service does not answer (${error.message}).`;
}

start().catch(fail);
