"use strict";

const VIEWS = ["pictures", "scatter", "duplicates"];

function showTrouble(error) {
  find("trouble").hidden = false;
  find("trouble").textContent = error.message;
}

/** Starts the page: reads the corpus and shows what the address asks for. */
async function start() {
  const corpus = await Corpus.open();
  let query = {};
  let rows = [];
  let written = null;
  const detail = new Detail(corpus, {
    onOpen: (key) => remember({ ...query, pair: key }),
    onClose: (row) => { remember({ ...query, pair: "" }); views[viewName()].focus(row); },
  });
  const open = (row) => { detail.rows = rows; detail.open(row).catch(showTrouble); };
  const views = {
    pictures: new PicturesView(corpus, open),
    scatter: new ScatterView(corpus, open),
    duplicates: new DuplicatesView(corpus, open),
  };
  views.duplicates.focus = (row) => find("duplicates").querySelector(`[data-row="${row}"]`)?.focus();
  const controls = new Controls(corpus, (changed) => apply({ ...query, ...changed }));
  const viewName = () => (VIEWS.includes(query.view) ? query.view : "pictures");

  function remember(changed) {
    query = changed;
    written = formatQuery(query);
    history.replaceState(null, "", written);
  }

  async function apply(changed) {
    remember(changed);
    const asked = query;
    controls.show(query);
    const found = await findRows(corpus, query);
    if (asked !== query && formatQuery({ ...asked, pair: "" }) !== formatQuery({ ...query, pair: "" })) return;
    rows = found;
    const name = viewName();
    for (const one of VIEWS) {
      find(`${one}-view`).hidden = one !== name;
      find(`show-${one}`).setAttribute("aria-pressed", String(one === name));
    }
    find("count").textContent = `${formatCount(rows.length)} of ${formatCount(corpus.size)} pairs`;
    await views[name].show(rows, query);
    document.documentElement.dataset.ready = String(rows.length);
  }

  async function follow() {
    if (location.hash === written) return;
    const wanted = readQuery(location.hash);
    await apply(wanted);
    if (!wanted.pair) return;
    const row = await corpus.findKey(wanted.pair);
    if (row >= 0) open(row);
    else showTrouble(new Error(`${wanted.pair} is not among the pairs of this page`));
  }

  for (const name of VIEWS) find(`show-${name}`).addEventListener("click", () => apply({ ...query, view: name }));
  window.addEventListener("hashchange", () => follow().catch(showTrouble));
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      find("f-text").focus();
    }
    if (event.key === "Escape" && event.target === find("f-text")) views[viewName()].focus(rows[0]);
  });
  const sampled = corpus.size < corpus.index.pairs;
  find("summary").textContent = sampled
    ? `${formatCount(corpus.size)} of the ${formatCount(corpus.index.pairs)} pairs of the corpus, drawn by the hash of their contents; counts on this page are of these.`
    : `All ${formatCount(corpus.size)} pairs of the corpus, dropped ones too.`;
  written = null;
  await follow();
}

window.addEventListener("unhandledrejection", (event) => showTrouble(event.reason));
start().catch(showTrouble);
