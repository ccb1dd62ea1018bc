"use strict";

const LARGEST_ENLARGED = 80; // pixels of a picture that is enlarged without smoothing

/** A picture in a box that is there at once; the picture comes when it is read. */
function makePicture(corpus, number, alternative) {
  const box = make("span", { class: "picture" });
  const showGap = (words) => box.replaceChildren(make("span", { class: "gap", role: "img", "aria-label": alternative }, words));
  if (number < 0) {
    showGap("no image");
    return box;
  }
  corpus.picture(number).then((source) => {
    if (source === null) { showGap("unreadable image"); return; }
    const image = make("img", { alt: alternative, src: source, decoding: "async" });
    image.addEventListener("load", () => {
      if (Math.max(image.naturalWidth, image.naturalHeight) <= LARGEST_ENLARGED) image.className = "enlarged";
    });
    box.replaceChildren(image);
  }).catch(showTrouble);
  return box;
}

/** A button with the picture, the outcome and the caption of a pair. */
function makeCard(corpus, row, open, note) {
  const outcome = corpus.outcome(row);
  const words = make("span", { class: "caption" });
  const style = corpus.style(row);
  const card = make("button", { type: "button", class: "card", "data-row": row, onclick: () => open(row) },
    makePicture(corpus, corpus.column.picture[row], ""),
    make("strong", { class: outcome.used ? "kept" : "dropped" }, makeText(corpus.describeOutcome(row), 60)),
    words,
    make("small", null, makeText(note || (style === null ? "raw" : style), 60)));
  corpus.text(row).then((text) => words.replaceChildren(makeText(text.caption || "no caption", MAX_TEXT))).catch(showTrouble);
  return card;
}
