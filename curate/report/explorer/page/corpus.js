"use strict";

/** The pairs of the report: columns of numbers in memory, texts, pictures and histories on demand. */
class Corpus {
  constructor(index, buffer) {
    this.index = index;
    this.size = index.shown;
    this.column = {};
    index.columns.forEach((name, place) => {
      this.column[name] = new Int32Array(buffer, 4 * place * this.size, this.size);
    });
    this.scoreNames = index.scores.map((score) => score.name);
    this.texts = new Map(); // chunk -> texts that have arrived
    this.outcomes = index.outcomes.map((outcome) => ({ ...outcome, used: outcome.stage === "train" || outcome.stage === "val" }));
  }

  static async open() {
    const [index, buffer] = await Promise.all([loadChunk("corpus"), loadChunk("rows")]);
    return new Corpus(index, buffer);
  }

  outcome(row) {
    return this.outcomes[this.column.outcome[row]];
  }

  /** "In train", or "Dropped: near-duplicate" as on the report. */
  describeOutcome(row) {
    const outcome = this.outcome(row);
    return outcome.used ? `In ${outcome.stage}` : `Dropped: ${outcome.reason}`;
  }

  style(row) {
    const code = this.column.style[row];
    return code < 0 ? null : this.index.styles[code];
  }

  async score(name) {
    const buffer = await loadChunk("scores");
    return new Float32Array(buffer, 4 * this.scoreNames.indexOf(name) * this.size, this.size);
  }

  /** {key, caption, source} of a pair. */
  async text(row) {
    const size = this.index.rows_of.texts;
    const number = Math.floor(row / size);
    if (!this.texts.has(number)) this.texts.set(number, await loadChunk(`texts-${number}`));
    const texts = this.texts.get(number);
    const at = row - number * size;
    return { key: texts.key[at], caption: texts.caption[at], source: texts.source[at] };
  }

  /** Lower-case key, caption and source of every pair, for the search. */
  searchable() {
    this.searchableTexts ||= this.readSearchable();
    return this.searchableTexts;
  }

  async readSearchable() {
    const size = this.index.rows_of.texts;
    const numbers = Array.from({ length: Math.ceil(this.size / size) }, (_, number) => number);
    const parts = await Promise.all(numbers.map((number) => loadChunk(`texts-${number}`)));
    return parts.flatMap((part) => part.key.map((key, at) => `${key} ${part.caption[at]} ${part.source[at]}`.toLowerCase()));
  }

  async findKey(key) {
    const size = this.index.rows_of.texts;
    for (let number = 0; number * size < this.size; number++) {
      const at = (await loadChunk(`texts-${number}`)).key.indexOf(key);
      if (at >= 0) return number * size + at;
    }
    return -1;
  }

  /** A picture as a data URI; null for a pair without one. */
  async picture(number) {
    if (number < 0) return null;
    const size = this.index.rows_of.pictures;
    const pictures = await loadChunk(this.index.pictures[Math.floor(number / size)]);
    const data = pictures[number % size];
    return data ? `data:image/webp;base64,${data}` : null;
  }

  async history(row) {
    const size = this.index.rows_of.histories;
    return (await loadChunk(`histories-${Math.floor(row / size)}`))[row % size];
  }

  /** The pairs with the same number in a column, in order; none for a negative number. */
  rowsWith(name, number) {
    const rows = [];
    if (number < 0) return rows;
    const column = this.column[name];
    for (let row = 0; row < this.size; row++) if (column[row] === number) rows.push(row);
    return rows;
  }

  /** For each pair the pair of which it is a duplicate, itself if it is none. */
  originals() {
    if (!this.originalOf) {
      const twin = this.column.duplicate_of;
      this.originalOf = Int32Array.from(twin, (_, row) => {
        let first = row;
        for (let steps = 0; twin[first] >= 0 && steps < 100; steps++) first = twin[first];
        return first;
      });
    }
    return this.originalOf;
  }
}
