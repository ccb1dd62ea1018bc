"use strict";

const MAX_TEXT = 160; // characters of a caption on a card

function find(id) {
  return document.getElementById(id);
}

/** An element with attributes and children. Strings become text, never HTML; `onclick` and the like listeners. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An untrusted text, isolated from the text around it; shortened if there is a limit. */
function makeText(text, limit = Infinity) {
  const line = text.replace(/\s+/g, " ").replace(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd");
  return make("bdi", null, line.length > limit ? `${line.slice(0, limit - 1)}…` : line);
}

function formatCount(number) {
  return number.toLocaleString("en");
}

/** A score with at most four decimals. */
function formatScore(value) {
  return Number.isNaN(value) ? "-" : String(Math.round(value * 1e4) / 1e4);
}
