"use strict";

const MARGIN = { left: 66, right: 14, top: 14, bottom: 42 };
const NEAR = 14; // pixels from a point at which a click means it

/** The view of two scores against each other, with the thresholds of the recipe; a point leads to its pair. */
class ScatterView {
  constructor(corpus, open) {
    this.corpus = corpus;
    this.open = open;
    this.canvas = find("scatter");
    this.drawing = document.createElement("canvas"); // everything but the mark, which moves often
    this.points = [];
    this.marked = -1; // place among the points
    this.canvas.addEventListener("click", (event) => { this.mark(this.nearest(event)); this.openMarked(); });
    this.canvas.addEventListener("mousemove", (event) => this.mark(this.nearest(event)));
    this.canvas.addEventListener("mouseleave", () => this.mark(-1));
    this.canvas.addEventListener("keydown", (event) => this.moveMark(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** The scores of the two axes: those of the query, else text and style, else the first two. */
  axes(query) {
    const { scoreNames, index } = this.corpus;
    const known = (name, fallback) => (scoreNames.includes(name) ? name : fallback);
    const x = known(query.x, known(index.text_score, scoreNames[0]));
    const other = scoreNames.find((name) => name !== x);
    const style = index.style_score === x ? other : index.style_score;
    return [x, known(query.y, known(style, other || x))];
  }

  async show(rows, query) {
    if (!this.corpus.scoreNames.length) {
      find("scatter-note").textContent = "This corpus has no scores.";
      this.canvas.hidden = true;
      return;
    }
    this.names = this.axes(query);
    const [xs, ys] = await Promise.all(this.names.map((name) => this.corpus.score(name)));
    this.points = Array.from(rows).filter((row) => Number.isFinite(xs[row]) && Number.isFinite(ys[row]));
    this.points.sort((a, b) => xs[a] - xs[b] || a - b);
    [this.xs, this.ys] = [xs, ys];
    this.limits = this.names.map((name) => this.corpus.index.scores.find((score) => score.name === name).limits);
    this.marked = -1;
    const without = rows.length - this.points.length;
    const words = `${formatCount(this.points.length)} pairs by ${this.names[0]} (across) and ${this.names[1]} (up)`;
    this.canvas.setAttribute("aria-label", `${words}. Arrow keys go from point to point, Enter opens the pair.`);
    find("scatter-note").textContent = `${words}${without ? `; ${formatCount(without)} pairs without both scores are left out` : ""}. Dashed lines are thresholds of the recipe.`;
    find("scatter-preview").replaceChildren();
    this.draw();
  }

  range(values, limits) {
    let [low, high] = [Infinity, -Infinity];
    for (const row of this.points) {
      low = Math.min(low, values[row]);
      high = Math.max(high, values[row]);
    }
    for (const [value] of limits) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (low > high) [low, high] = [0, 1];
    const room = (high - low || 1) * 0.03;
    return [low - room, high + room];
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !this.xs) return;
    const ratio = window.devicePixelRatio || 1;
    for (const one of [canvas, this.drawing]) {
      one.width = width * ratio;
      one.height = height * ratio;
    }
    const context = this.drawing.getContext("2d");
    context.scale(ratio, ratio);
    const styles = getComputedStyle(document.documentElement);
    const colour = (name) => styles.getPropertyValue(`--${name}`).trim();
    const [lowX, highX] = this.range(this.xs, this.limits[0]);
    const [lowY, highY] = this.range(this.ys, this.limits[1]);
    const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
    this.toX = (value) => MARGIN.left + ((value - lowX) / (highX - lowX)) * (right - MARGIN.left);
    this.toY = (value) => bottom - ((value - lowY) / (highY - lowY)) * (bottom - MARGIN.top);
    const size = this.points.length > 20000 ? 2 : this.points.length > 2000 ? 3 : 5;
    for (const used of [false, true]) {
      context.fillStyle = colour(used ? "kept-fill" : "dropped-fill");
      for (const row of this.points) {
        if (this.corpus.outcome(row).used === used) {
          context.fillRect(this.toX(this.xs[row]) - size / 2, this.toY(this.ys[row]) - size / 2, size, size);
        }
      }
    }
    this.drawFrame(context, colour, [lowX, highX, lowY, highY], right, bottom);
    this.drawMark();
  }

  /** Copy the drawing and frame the marked point. */
  drawMark() {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.drawing, 0, 0);
    if (this.marked < 0) return;
    const row = this.points[this.marked];
    const ratio = this.canvas.width / this.canvas.clientWidth;
    context.scale(ratio, ratio);
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.lineWidth = 2;
    context.strokeRect(this.toX(this.xs[row]) - 6, this.toY(this.ys[row]) - 6, 12, 12);
  }

  drawFrame(context, colour, [lowX, highX, lowY, highY], right, bottom) {
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = colour("soft");
    context.strokeStyle = colour("edge");
    context.strokeRect(MARGIN.left, MARGIN.top, right - MARGIN.left, bottom - MARGIN.top);
    const write = (words, x, y, align) => {
      context.save();
      context.textAlign = align;
      context.setLineDash([]);
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeStyle = colour("card"); // a halo, so that the words can be read on points
      context.strokeText(words, x, y);
      context.fillText(words, x, y);
      context.restore();
    };
    const short = (value) => String(Number(value.toPrecision(3)));
    for (const part of [0, 0.5, 1]) {
      write(short(lowX + part * (highX - lowX)), MARGIN.left + part * (right - MARGIN.left), bottom + 16, ["left", "center", "right"][2 * part]);
      write(short(lowY + part * (highY - lowY)), MARGIN.left - 6, bottom - part * (bottom - MARGIN.top) + (part === 1 ? 10 : 0), "right");
    }
    write(this.names[0], (MARGIN.left + right) / 2, bottom + 34, "center");
    context.save();
    context.translate(14, (MARGIN.top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    write(this.names[1], 0, 0, "center");
    context.restore();
    context.strokeStyle = colour("ink");
    context.setLineDash([5, 3]);
    for (const [value] of this.limits[0]) drawLine(context, this.toX(value), MARGIN.top, this.toX(value), bottom);
    for (const [value] of this.limits[1]) drawLine(context, MARGIN.left, this.toY(value), right, this.toY(value));
    context.setLineDash([]);
    context.fillStyle = colour("ink");
    this.limits[0].forEach(([value, label], number) => {
      const wide = context.measureText(label).width;
      const x = this.toX(value) > (MARGIN.left + right) / 2 ? this.toX(value) - 5 - wide : this.toX(value) + 5;
      write(label, Math.max(MARGIN.left + 4, Math.min(x, right - 4 - wide)), MARGIN.top + 13 + 15 * number, "left");
    });
    for (const [value, label] of this.limits[1]) write(label, right - 5, this.toY(value) - 5, "right");
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [-1, NEAR * NEAR];
    this.points.forEach((row, place) => {
      const apart = (this.toX(this.xs[row]) - x) ** 2 + (this.toY(this.ys[row]) - y) ** 2;
      if (apart < distance) [best, distance] = [place, apart];
    });
    return best;
  }

  /** Frame a point and show its pair beside the drawing. */
  mark(place) {
    if (place === this.marked) return;
    this.marked = place;
    this.drawMark();
    if (place < 0) return;
    const row = this.points[place];
    const note = this.names.map((name, axis) => `${name} ${formatScore([this.xs, this.ys][axis][row])}`).join(", ");
    find("scatter-preview").replaceChildren(makeCard(this.corpus, row, this.open, note));
  }

  openMarked() {
    if (this.marked >= 0) this.open(this.points[this.marked]);
  }

  moveMark(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity };
    if (event.key === "Enter") { this.openMarked(); return; }
    if (!(event.key in steps) || !this.points.length) return;
    event.preventDefault();
    this.mark(Math.min(this.points.length - 1, Math.max(0, this.marked + steps[event.key])));
  }

  focus() {
    this.canvas.focus();
  }
}

function drawLine(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}
