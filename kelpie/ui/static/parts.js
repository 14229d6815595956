// Fetches the changing parts of a page again: every two seconds while the page is seen and the server says so.

import { act, ask, pause, sayTrouble } from "./asking.js";

const PAUSE_MS = 2000;

for (const place of document.querySelectorAll("[data-parts]")) follow(place);
document.addEventListener("click", post);

async function follow(place) {
  for (let again = true; again; await pause(PAUSE_MS)) {
    await seen(place);
    try {
      const answer = await (await ask(place.dataset.parts)).json();
      for (const [id, html] of Object.entries(answer.parts)) replace(document.getElementById(id), html);
      again = answer.again;
      sayTrouble("");
    } catch (error) {
      sayTrouble(error.message);
    }
  }
}

// Waits until somebody looks: a page in the background, or a part that is closed, asks for nothing.
async function seen(place) {
  while (document.hidden || place.open === false)
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true });
      place.addEventListener("toggle", resolve, { once: true });
    });
}

// Puts new HTML in place if it differs, and keeps what the reader has opened, scrolled and focused.
function replace(place, html) {
  if (place.dataset.html === html) return;
  place.dataset.html = html;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  const opened = [...place.querySelectorAll("details[open][id]")].map((one) => one.id);
  const scrolled = [...place.querySelectorAll("[role=region][id]")].map((one) => [one.id, one.scrollLeft, reach(one)]);
  place.innerHTML = html;
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  for (const one of place.querySelectorAll("pre[role=region]")) one.scrollTo(0, one.scrollHeight);
  for (const [id, left, top] of scrolled) {
    const one = document.getElementById(id);
    one?.scrollTo(left, top ?? one.scrollHeight);
  }
  if (focused) document.getElementById(focused)?.focus();
}

// Returns how far down a region is scrolled, or null if it is at its end, where it is to stay.
function reach(region) {
  return region.scrollTop + region.clientHeight >= region.scrollHeight - 4 ? null : region.scrollTop;
}

async function post(event) {
  const button = event.target.closest("button[data-post]");
  if (!button || (button.dataset.ask && !confirm(button.dataset.ask))) return;
  button.disabled = true;
  try {
    await act(button.dataset.post, "{}");
  } catch (error) {
    sayTrouble(error.message);
    button.disabled = false;
  }
}
