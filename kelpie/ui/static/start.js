// The form that starts a run: every field is checked when it is left, all of them when the run is started.

import { act, sayTrouble } from "./asking.js";

const form = document.getElementById("start");
const said = document.getElementById("said");

form.addEventListener("change", async (event) => {
  const field = event.target;
  if (field.name === "dataset") return show(field, "");
  try {
    const answer = await (await act("/settings/check", written({ [field.name]: field.value }))).json();
    show(field, answer.problems[field.name] ?? "");
  } catch (error) {
    sayTrouble(error.message);
  }
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  said.textContent = form.elements.dataset.value.startsWith("s3://") ? "Starting …" : "Copying the data set …";
  sayTrouble("");
  try {
    const { dataset, ...settings } = Object.fromEntries(new FormData(form));
    const answer = await (await act("/runs", written(settings, dataset))).json();
    if (answer.address) return location.assign(answer.address);
    showAll(answer.problems);
  } catch (error) {
    sayTrouble(error.message);
  }
  said.textContent = "";
  button.disabled = false;
});

function written(settings, dataset = "") {
  return JSON.stringify({ dataset, settings });
}

function showAll(problems) {
  for (const field of form.elements) if (field.name) show(field, problems[field.name] ?? "");
  const first = form.querySelector("[aria-invalid=true]");
  for (let group = first?.closest("details"); group; group = group.parentElement.closest("details")) group.open = true;
  first?.focus();
}

function show(field, problem) {
  document.getElementById(`${field.id}-problem`).textContent = problem;
  if (problem) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}
