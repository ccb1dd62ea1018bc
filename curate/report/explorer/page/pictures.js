"use strict";

const CARD_WIDTH = 150; // at least: a phone of 360 pixels has two columns
const CARD_HEIGHT = 262;

/** The view of all matching pairs as pictures. */
class PicturesView {
  constructor(corpus, open) {
    this.corpus = corpus;
    this.rows = [];
    this.list = new WindowedList(find("pictures"), {
      label: "Pairs", width: CARD_WIDTH, height: CARD_HEIGHT,
      makeItem: (index) => makeCard(corpus, this.rows[index], open, this.notes ? this.notes(this.rows[index]) : null),
    });
  }

  async show(rows, query) {
    this.rows = rows;
    this.notes = null;
    if (query.sort) {
      const values = await this.corpus.score(query.sort);
      this.notes = (row) => `${query.sort} ${formatScore(values[row])}`;
    }
    this.list.show(rows.length);
  }

  focus(row) {
    const index = this.rows.indexOf(row);
    if (index >= 0) this.list.focus(index);
  }
}
