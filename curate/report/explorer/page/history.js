"use strict";

/** Everything that `stylear curate explain` knows of a pair; `follow(key)` opens another pair. */
function renderHistory(history, follow) {
  return [
    makeBlock("What the stages decided", make("ol", { class: "stages" }, ...history.stages.map(renderStage))),
    makeBlock("Scores", renderScores(history.scores)),
    makeBlock("Origin", renderFields(history.origin, follow)),
    makeBlock("In the corpus", renderFields({
      key: history.key, kind: history.kind, content: history.content, shard: history.shard, split: history.split,
      training_shard: history.training_shard, image: history.image,
    }, follow)),
    makeBlock("Preference pairs", history.preferences.length ? renderList(history.preferences, follow) : null),
    makeBlock("Synthesised from it", (history.children || []).length ? renderList(history.children, follow) : null),
  ].filter(Boolean);
}

function makeBlock(title, body) {
  return body && make("section", null, make("h3", null, title), body);
}

function renderStage(step) {
  const dropped = step.outcome === "dropped";
  const item = make("li", null, `${step.stage}: `, make("strong", { class: dropped ? "dropped" : "kept" }, step.outcome));
  if (step.reason !== null) item.append(": ", makeText(step.reason));
  if (step.rule !== null) {
    const found = step.value === null ? "" : `, found ${formatValue(step.value)}`;
    item.append(make("small", null, makeText(`${step.rule}${step.threshold === null ? "" : ` ${formatValue(step.threshold)}`}${found}`)));
  }
  if (step.because !== null) item.append(make("small", null, makeText(step.because)));
  return item;
}

function renderScores(scores) {
  const rows = Object.entries(scores).map(([name, { measured_by: model, ...values }]) => make("tr", null,
    make("th", { scope: "row" }, makeText(name)),
    make("td", null, makeText(Object.entries(values).map(([key, value]) => (key === name ? formatValue(value) : `${key} ${formatValue(value)}`)).join(", "))),
    make("td", null, makeText(formatModel(model)))));
  if (!rows.length) return null;
  const heads = ["score", "value", "measured by"].map((head) => make("th", { scope: "col" }, head));
  return make("div", { class: "scroll" }, make("table", null, make("thead", null, make("tr", null, ...heads)), make("tbody", null, ...rows)));
}

function formatModel({ type, model, weights_sha256: weights }) {
  const hash = typeof weights === "string" ? `weights ${weights.slice(0, 16)}` : weights ? formatValue(weights) : "";
  return [type, model, hash].filter(Boolean).map(formatValue).join(", ");
}

/** Names and values; those that are null are left out. */
function renderFields(fields, follow) {
  const list = make("dl", { class: "fields" });
  for (const [name, value] of Object.entries(fields)) {
    if (value === null || value === undefined) continue;
    list.append(make("dt", null, makeText(name)), make("dd", null, renderValue(name, value, follow)));
  }
  return list;
}

function renderList(items, follow) {
  return make("ul", { class: "fields-list" }, ...items.map((item) => make("li", null, renderFields(item, follow))));
}

function renderValue(name, value, follow) {
  if (typeof value === "object" && !Array.isArray(value)) return renderFields(value, follow);
  const isKey = ["parent", "other", "key"].includes(name) && typeof value === "string";
  const text = makeText(formatValue(value));
  return isKey ? make("button", { type: "button", class: "link", onclick: () => follow(value) }, text) : text;
}

function formatValue(value) {
  if (value === null) return "-";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
