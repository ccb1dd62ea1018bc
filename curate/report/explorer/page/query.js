"use strict";

// A query is what the address of the page says after `#`: filters, order, view, and the pair that is open.

const STAGES = ["fetch", "synthesize", "filter", "mix"];
const NOT_STATED = "(not stated)";
const KINDS = ["raw", "stylized"];

function readQuery(hash) {
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
}

function formatQuery(query) {
  const entries = Object.entries(query).filter(([, value]) => value !== "" && value !== null);
  return `#${new URLSearchParams(entries)}`;
}

/** Whether pairs of an outcome came into a stage, passed it, or were dropped by it. */
function matchesOutcome(outcome, wanted) {
  if (wanted === "used") return outcome.used;
  if (wanted === "train" || wanted === "val") return outcome.stage === wanted;
  const [what, stage] = wanted.split(":");
  const at = STAGES.indexOf(stage);
  const dropped = outcome.used ? STAGES.length : STAGES.indexOf(outcome.stage);
  if (what === "dropped") return dropped === at;
  return what === "in" ? dropped >= at : dropped > at;
}

/** Which numbers of a column are wanted, at number + 1; null for all. */
function wantedCodes(words, wanted) {
  if (!wanted) return null;
  return Uint8Array.from([wanted === NOT_STATED ? 1 : 0, ...words.map((word) => (word === wanted ? 1 : 0))]);
}

function wantedOutcomes(corpus, query) {
  if (!query.outcome && !query.reason) return null;
  return Uint8Array.from([0, ...corpus.outcomes.map((outcome) => Number(
    (!query.outcome || matchesOutcome(outcome, query.outcome)) && (!query.reason || outcome.reason === query.reason))) ]);
}

/** The kind of pairs that a stage makes; null for stages of both. */
function kindOfStage(wanted) {
  const stage = (wanted || "").split(":")[1];
  return stage === "fetch" ? "raw" : stage === "synthesize" ? "stylized" : null;
}

/** The scores that are limited: [values, lowest, highest]. */
async function readRanges(corpus, query) {
  const ranges = [];
  for (const name of corpus.scoreNames) {
    const [low, high] = [query[`min.${name}`], query[`max.${name}`]];
    if (low || high) ranges.push([await corpus.score(name), low ? Number(low) : -Infinity, high ? Number(high) : Infinity]);
  }
  return ranges;
}

/** The pairs that match a query, in its order. */
async function findRows(corpus, query) {
  const { index, column } = corpus;
  const filters = [
    [column.kind, wantedCodes(KINDS, query.kind)],
    [column.kind, wantedCodes(KINDS, kindOfStage(query.outcome))],
    [column.style, wantedCodes(index.styles, query.style)],
    [column.licence, wantedCodes(index.licences, query.licence)],
    [column.source, wantedCodes(index.sources, query.source)],
    [column.outcome, wantedOutcomes(corpus, query)],
  ].filter(([, wanted]) => wanted !== null);
  if (query.licence === NOT_STATED) filters.push([column.kind, wantedCodes(KINDS, "raw")]);
  const ranges = await readRanges(corpus, query);
  const words = (query.text || "").toLowerCase().split(/\s+/).filter(Boolean);
  const texts = words.length ? await corpus.searchable() : null;
  const found = [];
  rows: for (let row = 0; row < corpus.size; row++) {
    for (const [codes, wanted] of filters) if (!wanted[codes[row] + 1]) continue rows;
    for (const [values, low, high] of ranges) if (!(values[row] >= low && values[row] <= high)) continue rows;
    for (const word of words) if (!texts[row].includes(word)) continue rows;
    found.push(row);
  }
  return sortRows(corpus, Int32Array.from(found), query);
}

/** The pairs by a score, those without it last. */
async function sortRows(corpus, rows, query) {
  if (!corpus.scoreNames.includes(query.sort)) return rows;
  const values = await corpus.score(query.sort);
  const sign = query.order === "ascending" ? 1 : -1;
  return rows.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return sign * (x - y) || a - b;
  });
}
