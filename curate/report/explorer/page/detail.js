"use strict";

/** The dialog with everything that is known of one pair. */
class Detail {
  constructor(corpus, { onOpen, onClose }) {
    Object.assign(this, { corpus, onOpen, onClose });
    this.dialog = find("detail");
    this.rows = []; // among which the arrow keys go
    this.row = -1;
    find("detail-close").addEventListener("click", () => this.dialog.close());
    find("detail-before").addEventListener("click", () => this.step(-1));
    find("detail-after").addEventListener("click", () => this.step(1));
    this.dialog.addEventListener("close", () => { const row = this.row; this.row = -1; this.onClose(row); });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "ArrowLeft") this.step(-1);
      if (event.key === "ArrowRight") this.step(1);
    });
  }

  step(by) {
    const place = this.rows.indexOf(this.row);
    const next = this.rows[place + by];
    if (place >= 0 && next !== undefined) this.open(next);
  }

  async open(row) {
    this.row = row;
    const { corpus } = this;
    const [text, history] = await Promise.all([corpus.text(row), corpus.history(row)]);
    if (this.row !== row) return;
    const place = this.rows.indexOf(row);
    find("detail-before").disabled = place <= 0;
    find("detail-after").disabled = place < 0 || place === this.rows.length - 1;
    find("detail-place").textContent = place < 0 ? "" : `${formatCount(place + 1)} of ${formatCount(this.rows.length)}`;
    const style = corpus.style(row);
    const kind = style === null ? "Raw picture" : `Picture in the style of ${style}`;
    find("detail-title").replaceChildren(makeText(`${kind}: ${corpus.describeOutcome(row)}`));
    find("detail-main").replaceChildren(
      make("figure", null, makePicture(corpus, corpus.column.picture[row], text.caption),
        make("figcaption", { dir: "auto" }, makeText(text.caption || "no caption"))),
      ...this.renderRelations(row));
    find("detail-history").replaceChildren(...renderHistory(history, (key) => this.follow(key)));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    const focused = document.activeElement;
    if (!this.dialog.contains(focused) || focused.disabled) find("detail-close").focus();
    this.onOpen(text.key);
  }

  async follow(key) {
    const row = await this.corpus.findKey(key);
    if (row >= 0) this.open(row);
    else find("detail-place").textContent = `${key} is not among the pairs of this page`;
  }

  /** The pairs that belong to this one, as strips of pictures. */
  renderRelations(row) {
    const { corpus } = this;
    const { column } = corpus;
    const reference = corpus.index.references[column.reference[row]];
    const original = corpus.originals();
    const alike = [];
    for (let other = 0; other < corpus.size; other++) if (original[other] === original[row]) alike.push(other);
    return [
      reference && makeBlock("Style reference", make("div", { class: "strip" }, make("figure", { class: "card" },
        makePicture(corpus, reference.picture, `Style reference ${reference.id}`),
        make("figcaption", null, makeText(`${reference.id}${reference.split ? `, split ${reference.split}` : ", missing or changed since"}`))))),
      this.renderStrip("Raw parent", column.parent[row] < 0 ? [] : [column.parent[row]]),
      this.renderStrip("Candidates of the same prompt and reference", corpus.rowsWith("group", column.group[row]), row),
      this.renderStrip("Synthesised from it", corpus.rowsWith("parent", row)),
      this.renderStrip("Duplicates and near duplicates", alike.length > 1 ? alike : [], row),
    ].filter(Boolean);
  }

  renderStrip(title, rows, own) {
    if (!rows.length || (rows.length === 1 && rows[0] === own)) return null;
    const cards = rows.slice(0, SHOWN_OF_GROUP).map((other) => {
      const card = makeCard(this.corpus, other, (found) => this.open(found));
      if (other === own) card.setAttribute("aria-current", "true");
      return card;
    });
    const more = rows.length > cards.length ? ` (the first ${cards.length})` : "";
    return makeBlock(`${title}: ${formatCount(rows.length)}${more}`, make("div", { class: "strip" }, ...cards));
  }
}
