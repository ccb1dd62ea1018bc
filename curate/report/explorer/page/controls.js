"use strict";

const NARROW = 700; // pixels: a phone, where the filters are folded away
const SEARCH_DELAY_MS = 150; // after the last letter

/** The form of filters: shows a query, and calls `onChange` with what the user changed. */
class Controls {
  constructor(corpus, onChange) {
    this.corpus = corpus;
    this.form = find("controls");
    this.fillSelects();
    this.fillRanges();
    find("more").open = window.innerWidth > NARROW;
    let waiting = 0;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => onChange(this.read()), event.target.tagName === "SELECT" ? 0 : SEARCH_DELAY_MS);
    });
    find("clear").addEventListener("click", () => { this.form.reset(); onChange(this.read()); });
  }

  fillSelects() {
    const { corpus } = this;
    const { index, column, outcomes } = corpus;
    const count = (name, words) => {
      const counts = new Array(words.length).fill(0);
      for (const code of column[name]) if (code >= 0) counts[code] += 1;
      return words.map((word, code) => [word, `${shortWord(word)} (${formatCount(counts[code])})`]);
    };
    const reasons = new Map();
    count("outcome", outcomes.map((outcome) => outcome.reason || "")).forEach(([reason], code) => {
      if (reason) reasons.set(reason, (reasons.get(reason) || 0) + countCode(column.outcome, code));
    });
    addOptions(find("f-kind"), KINDS.map((kind) => [kind, `${kind} pairs`]));
    addOptions(find("f-style"), count("style", index.styles));
    addOptions(find("f-reason"), [...reasons].map(([reason, many]) => [reason, `${shortWord(reason)} (${formatCount(many)})`]));
    addOptions(find("f-licence"), index.licences.length ? [...count("licence", index.licences), [NOT_STATED, "not stated"]] : []);
    addOptions(find("f-source"), count("source", index.sources));
    const scores = corpus.scoreNames.map((name) => [name, name]);
    addOptions(find("f-sort"), scores);
    addOptions(find("f-x"), scores);
    addOptions(find("f-y"), scores);
    for (const select of this.form.querySelectorAll("select")) {
      if (select.options.length < 2 && select.id !== "f-order") select.closest("label").hidden = true;
    }
  }

  fillRanges() {
    const makeLimit = (name, bound) => make("input", {
      type: "number", step: "any", name: `${bound}.${name}`, placeholder: bound, "aria-label": `${name}, ${bound}`,
    });
    find("ranges").replaceChildren(...this.corpus.scoreNames.map((name) => make("div", { class: "range" },
      make("span", null, makeText(name, 40)), makeLimit(name, "min"), makeLimit(name, "max"))));
  }

  read() {
    return Object.fromEntries(new FormData(this.form));
  }

  show(query) {
    for (const field of this.form.elements) {
      if (field.name && field !== document.activeElement) field.value = query[field.name] || "";
    }
    find("axes").hidden = query.view !== "scatter";
  }
}

function countCode(codes, wanted) {
  let many = 0;
  for (const code of codes) if (code === wanted) many += 1;
  return many;
}

function shortWord(word) {
  return word.length > 60 ? `${word.slice(0, 59)}…` : word;
}

function addOptions(select, options) {
  for (const [value, words] of options) select.append(make("option", { value }, words));
}
