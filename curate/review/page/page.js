"use strict";

const QUESTIONS = {
  pair: {
    text: "Keep this picture?",
    answers: [["drop", "Drop", "d", "ArrowLeft"], ["keep", "Keep", "k", "ArrowRight"]],
  },
  choice: {
    text: "Which picture is better?",
    answers: [["left", "Left", "1", "ArrowLeft"], ["tie", "Equal", "0", "ArrowDown"], ["right", "Right", "2", "ArrowRight"]],
  },
};
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowDown: "↓" };
const find = (id) => document.getElementById(id);
let state = null;
let busy = false;

function showPicture(id, path, caption) {
  const figure = find(id);
  figure.hidden = path === null;
  const image = figure.querySelector("img");
  if (path === null) { image.removeAttribute("src"); return; }
  image.src = path;
  if (caption) figure.querySelector("figcaption").textContent = caption;
}

function addButton(label, keys, act, disabled) {
  const button = document.createElement("button");
  button.type = "button";
  button.disabled = disabled;
  button.append(label + " ");
  for (const key of keys) {
    const hint = document.createElement("kbd");
    hint.textContent = NAMES[key] || key;
    button.append(hint);
  }
  button.addEventListener("click", act);
  find("buttons").append(button);
}

function show(found) {
  state = found;
  const task = state.task;
  find("who").textContent = state.reviewer;
  find("count").textContent = `${state.done} of ${state.total} answered`;
  find("progress").max = state.total;
  find("progress").value = state.done;
  find("buttons").replaceChildren();
  find("question").textContent = task ? QUESTIONS[task.kind].text : "All answered. Thank you.";
  find("prompt").textContent = task ? task.prompt : "This page can be closed; everything is saved.";
  const isChoice = task !== null && task.kind === "choice";
  showPicture("reference", task && task.has_reference ? `reference/${task.id}` : null);
  showPicture("first", task ? `picture/${task.id}/0` : null, isChoice ? "Left" : "Picture");
  showPicture("second", isChoice ? `picture/${task.id}/1` : null, "Right");
  for (const [answer, label, ...keys] of task ? QUESTIONS[task.kind].answers : []) {
    addButton(label, keys, () => send("answer", { task: task.id, answer }), false);
  }
  addButton("Undo", ["u"], () => send("undo", {}), state.done === 0);
}

function fail(text) {
  find("trouble").hidden = false;
  find("trouble").textContent = text;
}

async function send(path, body) {
  if (busy) return;
  busy = true;
  try {
    const reply = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    if (!reply.ok && reply.status !== 409) throw new Error(`the server answered ${reply.status}`);
    find("trouble").hidden = true;
    show(await reply.json());
  } catch (error) {
    fail(`The answer was not saved (${error.message}). Is the command still running?`);
  } finally {
    busy = false;
  }
}

document.addEventListener("keydown", (event) => {
  if (!state || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "u") { if (state.done > 0) send("undo", {}); return; }
  const answers = state.task ? QUESTIONS[state.task.kind].answers : [];
  const chosen = answers.find(([, , ...keys]) => keys.includes(event.key));
  if (chosen) { event.preventDefault(); send("answer", { task: state.task.id, answer: chosen[0] }); }
});

for (const image of document.querySelectorAll("img")) {
  image.addEventListener("error", () => { if (image.closest("figure").id === "reference") image.closest("figure").hidden = true; else fail("A picture cannot be read; answer it later, or look at the terminal."); });
}

fetch("state").then((reply) => reply.json()).then(show).catch(() => fail("The server does not answer."));
