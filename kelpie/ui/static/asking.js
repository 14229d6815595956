// Asks the server, with the page's own key where something is to change, and says what went wrong.

const actionKey = document.querySelector("meta[name=kelpie-action]").content;

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.message ?? `the server answered ${status}`);
    this.status = status;
    this.answer = answer;
  }
}

export async function ask(address, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  const response = await fetch(address, { ...options, headers }).catch(() => {
    throw new Refused(0, { message: "The server does not answer: is `kelpie ui` still running?" });
  });
  if (response.ok) return response;
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  throw new Refused(response.status, isJson ? JSON.parse(text) : { message: text });
}

export function act(address, body, type = "application/json") {
  return ask(address, { method: "POST", body, headers: { "content-type": type, "x-kelpie-action": actionKey } });
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export function sayTrouble(text) {
  const place = document.getElementById("trouble");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = text === "";
}
