// Drops files into the inbox, and puts a card in place for each: first that it waits, then what came back.

import { act, ask, pause, sayTrouble } from "./asking.js";

const PAUSE_MS = 1000;
const AT_A_TIME = 4;
const form = document.getElementById("drop");
const files = document.getElementById("files");
const cards = document.getElementById("cards");
const said = document.getElementById("said");
let dropped = 0;
let answered = 0;

files.addEventListener("change", () => {
  drop([...files.files]);
  files.value = "";
});
for (const [name, isOver] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    form.classList.toggle("over", isOver);
  });
document.addEventListener("drop", (event) => drop([...event.dataTransfer.files]));

async function drop(chosen) {
  dropped += chosen.length;
  count();
  const waiting = chosen.map((file) => [file, newCard(file)]);
  const work = async () => {
    while (waiting.length) await dropOne(...waiting.shift());
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
}

async function dropOne(file, card) {
  try {
    const put = await act(`/inbox?name=${encodeURIComponent(file.name)}`, file, "application/octet-stream");
    follow((await put.json()).result, card);
  } catch (error) {
    say(card, error.message);
  }
}

async function follow(result, card) {
  for (;;) {
    await pause(PAUSE_MS);
    if (document.hidden) continue;
    try {
      const answer = await ask(`/inbox/card?result=${encodeURIComponent(result)}`);
      sayTrouble("");
      if (answer.status === 204) continue;
      card.innerHTML = await answer.text();
      answered += 1;
      return count();
    } catch (error) {
      sayTrouble(error.message);
    }
  }
}

function newCard(file) {
  const card = document.createElement("li");
  card.className = "card";
  const place = element("div", "thumbnail none", "");
  place.setAttribute("aria-hidden", "true");
  card.append(place, element("h3", "break", file.name), element("p", "muted", "Waiting …"));
  cards.prepend(card);
  document.getElementById("listed").hidden = true;
  return card;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function say(card, text) {
  card.querySelector("p").textContent = text;
  card.querySelector("p").className = "bad";
}

function count() {
  said.textContent = `${answered} of ${dropped} answered.`;
}
