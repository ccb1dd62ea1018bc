"use strict";

const GROUP_HEIGHT = 284;
const SHOWN_OF_GROUP = 24;

/** The view of duplicates: each group of pairs that look alike side by side, the best one first. */
class DuplicatesView {
  constructor(corpus, open) {
    this.corpus = corpus;
    this.open = open;
    this.list = new WindowedList(find("duplicates"), {
      label: "Groups of duplicates", width: null, height: GROUP_HEIGHT, makeItem: (index) => this.makeGroup(this.groups[index]),
    });
  }

  /** Groups of which a matching pair is a member, the largest first. */
  show(rows) {
    const original = this.corpus.originals();
    const wanted = new Set(Array.from(rows, (row) => original[row]));
    const groups = new Map();
    for (let row = 0; row < this.corpus.size; row++) {
      if (original[row] !== row && wanted.has(original[row])) {
        if (!groups.has(original[row])) groups.set(original[row], [original[row]]);
        groups.get(original[row]).push(row);
      }
    }
    this.groups = [...groups.values()].sort((a, b) => b.length - a.length || a[0] - b[0]);
    this.list.show(this.groups.length);
    const pairs = this.groups.reduce((sum, group) => sum + group.length, 0);
    find("duplicates-note").textContent = this.groups.length
      ? `${formatCount(this.groups.length)} groups of ${formatCount(pairs)} pairs. The first of a group was kept in place of the others, though a later rule may have dropped it.`
      : "None of these pairs is a duplicate of another.";
  }

  makeGroup(group) {
    const shown = group.slice(0, SHOWN_OF_GROUP);
    const more = group.length - shown.length;
    return make("div", { class: "group" },
      make("p", { class: "count" }, `${formatCount(group.length)} pairs that look alike${more ? `, ${formatCount(more)} of them not shown` : ""}`),
      make("div", { class: "strip" }, ...shown.map((row) => makeCard(this.corpus, row, this.open))));
  }
}
