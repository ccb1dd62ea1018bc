"use strict";

/** A long list of items of one size of which only those in view are in the document. */
class WindowedList {
  /** `makeItem(index)` gives the content of an item; `width` null means the whole width. */
  constructor(element, { label, width, height, makeItem }) {
    Object.assign(this, { element, width, height, makeItem });
    this.count = 0;
    this.columns = 1;
    this.current = 0;
    this.items = new Map();
    element.setAttribute("role", "list");
    element.setAttribute("aria-label", label);
    element.addEventListener("keydown", (event) => this.moveFocus(event));
    element.addEventListener("focusin", (event) => this.noteFocus(event.target));
    const update = () => requestAnimationFrame(() => this.update());
    window.addEventListener("scroll", update, { passive: true });
    new ResizeObserver(update).observe(element);
  }

  /** Show other items, from the beginning. */
  show(count) {
    this.count = count;
    this.current = 0;
    this.element.replaceChildren();
    this.items.clear();
    this.update();
  }

  update() {
    const wide = this.element.clientWidth;
    if (!wide) return;
    const columns = this.width === null ? 1 : Math.max(1, Math.floor(wide / this.width));
    if (columns !== this.columns) {
      this.columns = columns;
      this.element.replaceChildren();
      this.items.clear();
    }
    this.element.style.height = `${Math.ceil(this.count / columns) * this.height}px`;
    const top = this.element.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this.height) - 1) * columns;
    const last = Math.min(this.count, (Math.ceil((window.innerHeight - top) / this.height) + 1) * columns);
    for (const [index, item] of this.items) {
      if ((index < first || index >= last) && !item.contains(document.activeElement)) {
        item.remove();
        this.items.delete(index);
      }
    }
    for (let index = first; index < last; index++) if (!this.items.has(index)) this.add(index, wide / columns);
  }

  add(index, step) {
    const item = make("div", { role: "listitem", class: "item", "aria-posinset": index + 1, "aria-setsize": this.count },
      this.makeItem(index));
    item.style.top = `${Math.floor(index / this.columns) * this.height}px`;
    item.style.left = `${(index % this.columns) * step}px`;
    item.style.width = `${step}px`;
    item.style.height = `${this.height}px`;
    for (const button of item.querySelectorAll("button")) button.tabIndex = index === this.current ? 0 : -1;
    this.items.set(index, item);
    this.element.append(item);
  }

  /** The item that Tab leads to is the one that had the focus last. */
  noteFocus(target) {
    for (const [index, item] of this.items) {
      if (item.contains(target)) this.current = index;
    }
    for (const [index, item] of this.items) {
      for (const button of item.querySelectorAll("button")) button.tabIndex = index === this.current ? 0 : -1;
    }
  }

  moveFocus(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focus(Math.min(this.count - 1, Math.max(0, this.current + steps[event.key])));
  }

  /** Scroll an item into view and focus its first button. */
  focus(index) {
    if (!this.count) return;
    const box = this.element.getBoundingClientRect();
    const top = box.top + Math.floor(index / this.columns) * this.height;
    if (top < 0) window.scrollBy(0, top);
    else if (top + this.height > window.innerHeight) window.scrollBy(0, top + this.height - window.innerHeight);
    this.update();
    const item = this.items.get(index);
    if (item) item.querySelector("button").focus({ preventScroll: true });
  }
}
