/* Draws the figures of a report. Data comes from the page itself; nothing is loaded. Texts are set as text,
   never as HTML. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  // ------------------------------------------------------------------------------------ small helpers

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function draw(parent, tag, attributes = {}, text = null) {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  }

  function number(value, digits = 4) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "no value";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-3) return value.toExponential(digits - 2).replace("e+", "e");
    return String(Number(value.toPrecision(digits)));
  }

  const withUnit = (value, unit) => number(value) + (unit ? (unit === "°" ? unit : " " + unit) : "");
  /* 200 µm rather than 200000 nm. */
  function readable(length, unit) {
    const units = ["pm", "nm", "µm", "mm", "m"];
    let at = units.indexOf(unit);
    if (at < 0) return [length, unit];
    while (length >= 1000 && at < units.length - 1) { length /= 1000; at++; }
    while (length < 1 && at > 0) { length *= 1000; at--; }
    return [length, units[at]];
  }

  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const colour = (index) => `var(--c${index % 16})`;

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const width = packed.dtype === "f4" ? 4 : 2;
    const n = planes.length / width;
    const values = new Float32Array(n);
    if (width === 4) {
      const joined = new DataView(new ArrayBuffer(4));
      for (let i = 0; i < n; i++) {
        for (let k = 0; k < 4; k++) joined.setUint8(k, planes[k * n + i]);
        values[i] = joined.getFloat32(0, true);
      }
    } else {
      for (let i = 0; i < n; i++) {
        const code = planes[i] | (planes[n + i] << 8);
        values[i] = code === 65535 ? NaN : packed.low + code * packed.step;
      }
    }
    return values;
  }

  const viridis = d3.range(256).map((i) => d3.rgb(d3.interpolateViridis(i / 255)));
  const blueRed = d3.range(256).map((i) => d3.rgb(d3.interpolateRdBu(1 - i / 255)));

  function shade(value, range) {
    const table = range.diverging ? blueRed : viridis;
    const share = (value - range.low) / (range.high - range.low || 1);
    return table[clamp(Math.round(share * 255), 0, 255)];
  }

  function rangeOf(values) {
    let low = Infinity, high = -Infinity;
    for (const v of values) if (Number.isFinite(v)) { if (v < low) low = v; if (v > high) high = v; }
    if (!(high >= low)) return { low: 0, high: 1, diverging: false };
    if (low >= 0 && low < 0.25 * high) low = 0;
    return { low, high: high > low ? high : low + 1, diverging: false };
  }

  // ------------------------------------------------------------------------------------------- curves

  /* A plot of curves over one axis: a cursor that mouse and arrow keys move, and (for spectra) a window that
     is dragged. `spec.series`: [{y, kind: line | model | bars | dots, colour}]. */
  class Plot {
    constructor(place, spec) {
      this.place = place;
      this.spec = spec;
      this.height = spec.height || 170;
      this.cursor = null;
      this.zoom = null;
      this.window = null;
      place.tabIndex = 0;
      place.setAttribute("role", "slider");
      place.setAttribute("aria-label", `${spec.name}. Arrow keys move along ${spec.xLabel}.`);
      place.setAttribute("aria-valuemin", "0");
      place.setAttribute("aria-valuemax", String(spec.x.length - 1));
      place.setAttribute("aria-valuenow", "0");
      place.setAttribute("aria-valuetext", "not set");
      place.addEventListener("keydown", (event) => this.key(event));
      place.addEventListener("pointermove", (event) => this.move(event));
      place.addEventListener("pointerdown", (event) => this.down(event));
      place.addEventListener("pointerup", (event) => this.up(event));
      place.addEventListener("pointercancel", () => { this.from = null; });
      place.addEventListener("pointerleave", () => { if (this.from == null && document.activeElement !== place) this.spec.onCursor(null); });
      place.addEventListener("blur", () => this.spec.onCursor(null));
      (Plot.all = Plot.all || []).push(this);
      this.paint();
    }

    get width() { return Plot.printing ? this.spec.printed : clamp(this.place.clientWidth || 640, 220, 1400); }

    extent() {
      const x = this.spec.x;
      if (this.zoom) return this.zoom;
      const half = this.spec.series.some((s) => s.kind === "bars" || s.kind === "dots") ? 0.6 : x.length === 1 ? 0.5 : 0;
      return [Math.min(x[0], x[x.length - 1]) - half, Math.max(x[0], x[x.length - 1]) + half];
    }

    scales(width, margin) {
      const { spec } = this;
      const [x0, x1] = this.extent();
      const inside = spec.x.map((v) => v >= x0 && v <= x1);
      let low = Infinity, high = -Infinity, least = Infinity;
      for (const series of spec.series) {
        series.y.forEach((v, i) => {
          if (!inside[i] || v === null || !Number.isFinite(v)) return;
          if (v < low) low = v;
          if (v > high) high = v;
          if (v > 0 && v < least) least = v;
        });
      }
      if (!(high >= low)) [low, high] = [0, 1];
      for (const extra of spec.include || []) { low = Math.min(low, extra); high = Math.max(high, extra); }
      const bottom = this.height - margin.bottom, top = margin.top;
      let kind = spec.yscale || "linear";
      if (kind === "log" && !(high > 0)) kind = "linear";
      let y;
      if (kind === "log") {
        if (!Number.isFinite(least)) least = high / 10;
        y = d3.scaleLog().domain([Math.max(Math.min(least, ...(spec.include || [])) * 0.6, high * 1e-6), high * 1.25]).range([bottom, top]).clamp(true);
      } else {
        if (!spec.free && low > 0) low = 0;
        if (!spec.free && high < 0) high = 0;
        if (high === low) high = low + Math.abs(low || 1);
        const room = 0.05 * (high - low);
        const domain = [low < 0 || spec.free ? low - room : low, high + room];
        y = kind === "sqrt" ? d3.scaleSqrt().domain(domain) : d3.scaleLinear().domain(domain);
        y.range([bottom, top]);
      }
      return { x: d3.scaleLinear().domain([x0, x1]).range([margin.left, width - margin.right]), y, kind };
    }

    paint() {
      const { spec } = this;
      const width = this.width;
      const peaks = spec.peaks || [];
      const margin = { left: 62, right: 12, top: peaks.length ? 36 : 10, bottom: spec.bare ? 20 : 38 };
      const { x, y, kind } = this.scales(width, margin);
      Object.assign(this, { x, y, margin, painted: width });
      this.place.replaceChildren();
      const svg = draw(this.place, "svg", { viewBox: `0 0 ${width} ${this.height}`, "aria-hidden": "true", focusable: "false" });
      this.svg = svg;
      const bottom = this.height - margin.bottom;
      this.axes(svg, x, y, kind, width, bottom);
      if (spec.band) {
        draw(svg, "rect", { class: "band", x: margin.left, width: width - margin.left - margin.right, y: y(spec.band), height: Math.max(0, y(-spec.band) - y(spec.band)) });
      }
      const clip = `clip-${Plot.count = (Plot.count || 0) + 1}`;
      draw(draw(svg, "clipPath", { id: clip }), "rect", { x: margin.left, y: 0, width: width - margin.left - margin.right, height: this.height });
      const inner = draw(svg, "g", { "clip-path": `url(#${clip})` });
      this.shaded = draw(inner, "rect", { class: "window", y: margin.top, height: bottom - margin.top, width: 0, x: 0 });
      for (const series of spec.series) this.series(inner, series, x, y, bottom);
      if (spec.rule) {
        const at = y(spec.rule[0]);
        draw(svg, "line", { class: "threshold", x1: margin.left, x2: width - margin.right, y1: at, y2: at });
        const below = at + 19 < bottom - 2;
        draw(svg, "text", { class: "threshold-text", x: width - margin.right, y: below ? at + 19 : at - 8, "text-anchor": "end" }, spec.rule[1]);
      }
      this.peaks(svg, peaks, x, y);
      this.line = draw(svg, "line", { class: "cursor", y1: margin.top, y2: bottom, x1: 0, x2: 0, visibility: "hidden" });
      this.showWindow();
      this.showCursor();
    }

    axes(svg, x, y, kind, width, bottom) {
      const { spec, margin } = this;
      const names = spec.names;
      const whole = spec.integers && x.domain()[1] - x.domain()[0] <= 40;
      const bottomAxis = d3.axisBottom(x).ticks(Math.max(3, Math.floor(width / 90))).tickSizeOuter(0);
      if (whole) bottomAxis.tickValues(spec.x.filter((v, i) => spec.x.length < 16 || i % 5 === 0)).tickFormat(d3.format("d"));
      if (names) bottomAxis.tickValues(spec.x.slice(0, 40)).tickFormat((v) => names[Math.round(v)] || "");
      d3.select(draw(svg, "g", { transform: `translate(0,${bottom})` })).call(bottomAxis);
      const ticks = Math.max(2, Math.floor((bottom - margin.top) / 34));
      const left = d3.axisLeft(y).tickSizeOuter(0);
      if (kind === "log") left.ticks(ticks, "~g");
      else if (kind === "sqrt") {
        const top = y.domain()[1];
        left.tickValues(d3.ticks(0, top, 3)).tickFormat((v) => number(v, 3));
      } else left.ticks(ticks).tickFormat((v) => number(v, 3));
      d3.select(draw(svg, "g", { transform: `translate(${margin.left},0)` })).call(left);
      if (!spec.bare) {
        draw(svg, "text", { x: (margin.left + width - margin.right) / 2, y: this.height - 5, "text-anchor": "middle" }, spec.xLabel);
      }
      const middle = (margin.top + bottom) / 2;
      draw(svg, "text", { transform: `translate(11,${middle}) rotate(-90)`, "text-anchor": "middle" }, spec.yLabel || "");
      if (y.domain()[0] < 0) draw(svg, "line", { class: "zero", x1: margin.left, x2: width - margin.right, y1: y(0), y2: y(0) });
    }

    series(svg, series, x, y, bottom) {
      const { spec } = this;
      const good = (v) => v !== null && Number.isFinite(v) && (spec.yscale !== "log" || v > 0);
      const at = d3.range(spec.x.length);
      const group = draw(svg, "g");
      if (series.colour) group.style.setProperty("--colour", series.colour);
      const zero = y.domain()[0] <= 0 && y.domain()[1] >= 0 && spec.yscale !== "log" ? y(0) : bottom;
      if (series.kind === "bars") {
        const step = Math.abs(x(1) - x(0)) * 0.7;
        for (const i of at) {
          if (!good(series.y[i])) continue;
          const top = y(series.y[i]);
          draw(group, "rect", { class: "bar", x: x(spec.x[i]) - step / 2, width: step, y: Math.min(top, zero), height: Math.abs(zero - top) });
        }
        return;
      }
      const line = d3.line().defined((i) => good(series.y[i])).x((i) => x(spec.x[i])).y((i) => y(series.y[i]));
      if (series.kind === "line" && !spec.free) {
        const area = d3.area().defined((i) => good(series.y[i])).x((i) => x(spec.x[i])).y1((i) => y(series.y[i])).y0(zero);
        draw(group, "path", { class: "area", d: area(at) || "" });
      }
      if (series.low) {
        const least = spec.yscale === "log" ? y.domain()[0] : -Infinity;
        const band = d3.area().defined((i) => Number.isFinite(series.low[i]) && Number.isFinite(series.high[i])).x((i) => x(spec.x[i])).y0((i) => y(Math.max(series.low[i], least))).y1((i) => y(Math.max(series.high[i], least)));
        draw(group, "path", { class: "interval", d: band(at) || "" });
      }
      draw(group, "path", { class: series.kind === "model" ? "model" : "line", d: line(at) || "" });
      if (series.kind !== "dots") return;
      for (const i of at) {
        if (!good(series.y[i])) continue;
        const faint = (spec.faint || []).includes(i);
        const inside = spec.accepted !== null && i < spec.accepted;
        draw(group, "circle", { class: `dot${inside ? " in" : ""}${faint ? " faint" : ""}`, cx: x(spec.x[i]), cy: y(series.y[i]), r: 4 });
      }
    }

    /* Names of lines over their peaks: the highest first; one that has no room left is left to the table. */
    peaks(svg, peaks, x, y) {
      const { spec, margin } = this;
      if (!peaks.length || !spec.series.length) return;
      const main = spec.series[0].y;
      const [low, high] = x.domain();
      const all = peaks.filter(([at]) => at >= low && at <= high).map(([at, text]) => {
        const i = this.nearest(at);
        let top = 0;
        for (let k = Math.max(0, i - 4); k <= Math.min(main.length - 1, i + 4); k++) if (Number.isFinite(main[k]) && main[k] > top) top = main[k];
        return { at, text, top };
      });
      all.sort((a, b) => b.top - a.top);
      const taken = [];
      for (const peak of all) {
        if (peak.top < (spec.least || 0) * all[0].top) continue;
        const width = 6.2 * peak.text.length + 6;
        const middle = clamp(x(peak.at), margin.left + width / 2, this.painted - margin.right - width / 2);
        const above = Math.min(y(peak.top > 0 ? peak.top : y.domain()[0]), this.height - margin.bottom) - 6;
        for (let lift = 0; lift < 3; lift++) {
          const base = Math.max(above - 13 * lift, 10);
          const box = [middle - width / 2, middle + width / 2, base - 11, base + 2];
          if (taken.some((t) => box[0] < t[1] && box[1] > t[0] && box[2] < t[3] && box[3] > t[2])) continue;
          if (lift) draw(svg, "line", { class: "peak-line", x1: x(peak.at), x2: x(peak.at), y1: base + 2, y2: above });
          draw(svg, "text", { class: "peak", x: middle, y: base, "text-anchor": "middle" }, peak.text);
          taken.push(box);
          break;
        }
      }
    }

    nearest(value) {
      const x = this.spec.x;
      if (x.length < 2) return 0;
      const down = x[0] > x[x.length - 1];
      const i = down ? d3.bisector((a, b) => b - a).center(x, value) : d3.bisectCenter(x, value);
      return clamp(i, 0, x.length - 1);
    }

    place_of(event) {
      const box = this.svg.getBoundingClientRect();
      return this.x.invert((event.clientX - box.left) * (this.painted / box.width));
    }

    down(event) {
      if (!this.spec.onWindow || event.button !== 0) return;
      this.from = this.place_of(event);
      this.place.setPointerCapture(event.pointerId);
    }

    move(event) {
      const at = this.place_of(event);
      this.spec.onCursor(this.nearest(at));
      if (this.from != null && Math.abs(this.x(at) - this.x(this.from)) > 4) {
        this.dragged = [Math.min(this.from, at), Math.max(this.from, at)];
        this.window = this.dragged;
        this.showWindow();
      }
    }

    up() {
      if (this.from != null && this.dragged) this.spec.onWindow(this.dragged);
      this.from = null;
      this.dragged = null;
    }

    key(event) {
      const n = this.spec.x.length;
      const step = event.shiftKey ? Math.max(1, Math.round(n / 50)) : 1;
      const now = this.cursor === null ? 0 : this.cursor;
      const next = { ArrowRight: now + step, ArrowUp: now + step, ArrowLeft: now - step, ArrowDown: now - step, Home: 0, End: n - 1, PageUp: now + Math.round(n / 10), PageDown: now - Math.round(n / 10) }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      this.spec.onCursor(clamp(this.cursor === null && event.key.startsWith("Arrow") ? 0 : next, 0, n - 1));
    }

    setCursor(index) {
      this.cursor = index;
      this.showCursor();
      const text = index === null ? "not set" : this.say(index);
      this.place.setAttribute("aria-valuenow", String(index === null ? 0 : index));
      this.place.setAttribute("aria-valuetext", text);
      return text;
    }

    say(index) {
      const { spec } = this;
      const at = spec.names ? spec.names[index] : spec.xUnit === undefined ? `${spec.xLabel} ${number(spec.x[index])}` : withUnit(spec.x[index], spec.xUnit);
      const told = spec.series.map((s) => (s.said ? s.said + " " : "") + withUnit(s.y[index], spec.unit));
      return `${at}: ${told.join(", ")}`;
    }

    showCursor() {
      const shown = this.cursor !== null;
      this.line.setAttribute("visibility", shown ? "visible" : "hidden");
      if (!shown) return;
      const at = this.x(this.spec.x[this.cursor]);
      this.line.setAttribute("x1", at);
      this.line.setAttribute("x2", at);
    }

    showWindow() {
      const [low, high] = this.window ? this.window.map((v) => this.x(v)) : [0, 0];
      this.shaded.setAttribute("x", Math.min(low, high));
      this.shaded.setAttribute("width", Math.abs(high - low));
    }
  }

  /* Paper is narrower than most windows: text must not shrink with the drawing. */
  function repaintAll(printing) {
    Plot.printing = printing;
    for (const plot of Plot.all || []) plot.paint();
  }

  function sized(element, repaint) {
    let last = element.clientWidth;
    new ResizeObserver(() => {
      const now = element.clientWidth;
      if (now && Math.abs(now - last) > 1) { last = now; repaint(); }
    }).observe(element);
  }

  function drawCurve(place) {
    const figure = data.figures[place.dataset.curve];
    const reading = make("p", { class: "reading" });
    const spec = {
      name: place.dataset.name,
      x: figure.x,
      xLabel: figure.xLabel,
      yLabel: figure.yLabel,
      yscale: figure.log ? "log" : "linear",
      series: [{ y: figure.y.map((v) => (v === null ? NaN : v)), kind: figure.points ? "dots" : "line", said: figure.value }],
      rule: figure.rule,
      include: figure.rule ? [figure.rule[0]] : figure.band ? [-1.5 * figure.band, 1.5 * figure.band] : [],
      accepted: figure.accepted,
      faint: figure.faint,
      band: figure.band,
      free: figure.points && !figure.log,
      integers: figure.points,
      height: 250,
      printed: 640,
      onCursor: (index) => { reading.textContent = plot.setCursor(index) === "not set" ? "" : plot.say(index); },
    };
    const plot = new Plot(place, spec);
    place.after(reading);
    sized(place, () => plot.paint());
  }

  // --------------------------------------------------------------------------------------------- maps

  /* One image or line scan with a cursor, on canvas; the overlay is SVG. */
  class Picture {
    constructor(place, group, name) {
      this.group = group;
      const axes = group.axes;
      this.ny = axes.length === 2 ? axes[0].values.length : 1;
      this.nx = axes[axes.length - 1].values.length;
      this.canvas = make("canvas", { width: this.nx, height: this.ny, "aria-hidden": "true" });
      this.overlay = document.createElementNS(SVG, "svg");
      this.overlay.setAttribute("aria-hidden", "true");
      this.box = make("div", {
        class: "image",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "map",
        "aria-label": `${name}. Arrow keys move the cursor, Escape takes it away.`,
      }, this.canvas, this.overlay);
      place.append(this.box);
      this.size();
      this.box.addEventListener("pointermove", (event) => { if (!group.pinned) group.point(this.at(event), false); });
      this.box.addEventListener("pointerleave", () => { if (!group.pinned) group.point(null, false); });
      this.box.addEventListener("click", (event) => { group.pinned = !group.pinned; group.point(this.at(event), false); });
      this.box.addEventListener("keydown", (event) => this.key(event));
    }

    size() {
      const axes = this.group.axes;
      const step = (axis) => {
        const v = axis.values;
        return v.length > 1 && typeof v[0] === "number" ? Math.abs(v[v.length - 1] - v[0]) / (v.length - 1) || 1 : 1;
      };
      let aspect = this.ny / this.nx;
      // Pixels need not be square; where axes differ in kind, the picture is.
      if (axes.length === 2 && axes[0].unit === axes[1].unit) aspect *= step(axes[0]) / step(axes[1]);
      else if (axes.length === 2) aspect = 0.75;
      const most = this.group.limit || [264, 146];
      let width = most[0], height = Math.max(axes.length === 2 ? width * aspect : 26, 8);
      if (height > most[1]) { width *= most[1] / height; height = most[1]; }
      Object.assign(this, { width: Math.max(Math.round(width), 12), height: Math.round(height), stepX: step(axes[axes.length - 1]) });
      this.canvas.style.width = `${this.width}px`;
      this.canvas.style.height = `${this.height}px`;
      this.overlay.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    }

    at(event) {
      const box = this.canvas.getBoundingClientRect();
      return [
        clamp(Math.floor(((event.clientY - box.top) / box.height) * this.ny), 0, this.ny - 1),
        clamp(Math.floor(((event.clientX - box.left) / box.width) * this.nx), 0, this.nx - 1),
      ];
    }

    key(event) {
      const step = event.shiftKey ? 10 : 1;
      const move = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [-step, 0], ArrowDown: [step, 0] }[event.key];
      if (event.key === "Escape") { this.group.pinned = false; this.group.point(null, true); return; }
      if (!move) return;
      event.preventDefault();
      const now = this.group.cursor || [this.ny >> 1, this.nx >> 1];
      this.group.pinned = true;
      this.group.point([clamp(now[0] + move[0], 0, this.ny - 1), clamp(now[1] + move[1], 0, this.nx - 1)], true);
    }

    fill(values, range, categories = null) {
      const context = this.canvas.getContext("2d");
      const image = context.createImageData(this.nx, this.ny);
      values.forEach((value, i) => {
        const c = categories ? categories(value) : Number.isFinite(value) ? shade(value, range) : null;
        if (!c) return;
        image.data.set([c.r, c.g, c.b, c.opacity === undefined ? 255 : 255 * c.opacity], 4 * i);
      });
      context.putImageData(image, 0, 0);
      this.mark();
    }

    mark() {
      this.overlay.replaceChildren();
      const axis = this.group.axes[this.group.axes.length - 1];
      if (this.group.axes.length === 2 && axis.unit && typeof axis.values[0] === "number" && this.width > 90) {
        const whole = this.nx * this.stepX;
        const power = 10 ** Math.floor(Math.log10(whole / 3.5));
        const length = [5, 2, 1].map((f) => f * power).find((v) => v <= whole / 3.5) || power;
        const pixels = (length / whole) * this.width;
        draw(this.overlay, "rect", { class: "barline", x: 8, y: this.height - 11, width: pixels, height: 4 });
        draw(this.overlay, "text", { class: "bartext", x: 8, y: this.height - 16 }, withUnit(...readable(length, axis.unit)));
      }
      const cursor = this.group.cursor;
      if (!cursor) return;
      const x = ((cursor[1] + 0.5) / this.nx) * this.width, y = ((cursor[0] + 0.5) / this.ny) * this.height;
      for (const kind of ["cross under", "cross"]) {
        draw(this.overlay, "line", { class: kind, x1: x, x2: x, y1: 0, y2: this.height });
        if (this.ny > 1) draw(this.overlay, "line", { class: kind, x1: 0, x2: this.width, y1: y, y2: y });
      }
    }
  }

  function colourBar(range, unit) {
    const canvas = make("canvas", { width: 128, height: 1, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const image = context.createImageData(128, 1);
    for (let i = 0; i < 128; i++) {
      const c = shade(range.low + (i / 127) * (range.high - range.low), range);
      image.data.set([c.r, c.g, c.b, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    return [make("span", {}, number(range.low, 3)), canvas, make("span", {}, withUnit(range.high, unit).replace(number(range.high), number(range.high, 3)))];
  }

  // -------------------------------------------------------------------------- maps beside their spectra

  class Group {
    constructor(place, spec) {
      this.place = place;
      this.spec = spec;
      this.name = place.dataset.name;
      this.axes = spec.nav.axes;
      this.frame = 0;
      this.cursor = null;
      this.pinned = false;
      this.channel = null;
      this.window = null;
      this.own = !spec.adds;
      this.yscale = spec.yscale;
      this.rows = [];
    }

    async load() {
      const { spec } = this;
      const names = ["maps", "labels", "spectra", "bands"].filter((k) => spec[k]);
      const found = await Promise.all(names.map((k) => unpack(spec[k])));
      names.forEach((k, i) => { this[k] = found[i]; });
      if (spec.total) this.total = await unpack(spec.total.map);
      if (spec.sum) {
        this.measured = await unpack(spec.sum.measured);
        if (spec.sum.model) this.model = await unpack(spec.sum.model);
      }
      this.channels = this.spectra.length / spec.parts.length;
      this.pixels = this.axes.reduce((n, axis) => n * axis.values.length, 1);
      this.build();
    }

    // ------------------------------------------------------------------------------------ what is drawn

    build() {
      this.place.replaceChildren();
      this.live = make("p", { class: "hidden", "aria-live": "polite" });
      this.where = make("p", { class: "tip" });
      const controls = this.controls();
      this.place.append(this.live, ...(controls.childElementCount ? [controls] : []), this.where);
      const { spec } = this;
      spec.parts.forEach((_, k) => this.addRow(k));
      if (this.measured || this.total) this.addRow(-1);
      this.paintMaps();
      this.tell();
      sized(this.place, () => this.rows.forEach((row) => [row.plot, row.profile].forEach((plot) => plot && plot.paint())));
    }

    controls() {
      const { spec } = this;
      const controls = make("div", { class: "controls" });
      if (spec.nav.frames.length > 1 && this.pixels) {
        const caption = make("span", {}, spec.nav.frames[0]);
        const slider = make("input", { type: "range", min: 0, max: spec.nav.frames.length - 1, value: 0, "aria-valuetext": spec.nav.frames[0], on: { input: () => {
          this.frame = Number(slider.value);
          caption.textContent = spec.nav.frames[this.frame];
          slider.setAttribute("aria-valuetext", spec.nav.frames[this.frame]);
          this.paintMaps();
          this.tell();
        } } });
        controls.append(make("label", { class: "slider" }, "Position", slider, caption));
      }
      if (this.maps && spec.parts.length > 1) {
        const box = make("input", { type: "checkbox", on: { change: () => { this.own = !box.checked; this.paintMaps(); } } });
        box.checked = !this.own;
        controls.append(make("label", { class: "tool" }, box, "Same colour scale"));
      }
      if (spec.sig.ndim === 1 && !spec.sig.bars) {
        const select = make("select", { on: { change: () => { this.yscale = select.value; this.spectraChanged(); } } },
          ...[["linear", "linear"], ["sqrt", "square root"], ["log", "logarithmic"]].map(([value, text]) => make("option", { value }, text)));
        select.value = this.yscale;
        controls.append(make("label", { class: "tool" }, "Intensity", select));
        const field = (text) => make("input", { type: "number", step: "any", "aria-label": `${text} of the window, ${spec.sig.label}`, on: { change: () => this.typed() } });
        this.fields = [field("Start"), field("End")];
        this.buttons = [
          make("button", { type: "button", disabled: true, on: { click: () => this.zoomTo(this.window) } }, "Zoom"),
          make("button", { type: "button", disabled: true, on: { click: () => { this.setWindow(null); this.zoomTo(null); } } }, "Reset"),
        ];
        controls.append(make("label", { class: "tool" }, "Window", this.fields[0], "to", this.fields[1], spec.sig.unit || ""), ...this.buttons);
      }
      return controls;
    }

    addRow(k) {
      const { spec } = this;
      const part = k < 0 ? null : spec.parts[k];
      const row = { k };
      const title = make(this.place.dataset.heading, { class: "name" }, part ? part.name : "All together");
      row.swatch = make("span", { class: "swatch", "aria-hidden": "true" });
      if (part) row.swatch.style.setProperty("--colour", colour(k));
      row.note = make("span", { class: "share" }, part ? part.share : "");
      row.value = make("span", { class: "value" });
      row.reading = make("span", { class: "here" });
      const head = make("div", { class: "head" }, row.swatch, title, part && part.lines ? make("span", { class: "lines" }, part.lines) : null, row.note, row.reading, row.value);
      const left = make("div"), right = make("div");
      const hasMap = this.pixels && this.axes.length && (k < 0 ? this.total || this.labels : this.maps || this.labels);
      row.element = make("div", { class: `row${hasMap ? "" : " alone"}${part ? "" : " total"}` }, head, hasMap ? left : null, right);
      this.place.append(row.element);
      const name = part ? `${part.name}${part.lines ? " (" + part.lines + ")" : ""}` : "All together";
      if (hasMap && this.axes.length === 1 && !this.labels) this.addProfile(row, left, name);
      else if (hasMap) {
        row.picture = new Picture(left, this, `Map of ${name}`);
        row.scale = make("div", { class: "scale" });
        left.append(row.scale);
      }
      if (spec.sig.ndim === 1) this.addSpectrum(row, right, name);
      else this.addPattern(row, right, name);
      this.rows.push(row);
    }

    /* Along a line a curve says more than a strip of colours. */
    addProfile(row, place, name) {
      const { spec } = this;
      const [axis] = this.axes;
      const numeric = typeof axis.values[0] === "number";
      const figure = make("div", { class: "plot" });
      place.append(figure);
      const unit = row.k < 0 ? spec.total.unit : spec.unit;
      row.profile = new Plot(figure, {
        name: `Loading of ${name}`,
        x: numeric ? axis.values : axis.values.map((_, i) => i),
        names: numeric ? null : axis.values,
        xLabel: axis.label,
        xUnit: numeric ? axis.unit : undefined,
        yLabel: unit,
        unit,
        series: [],
        height: 164,
        printed: 230,
        onCursor: (index) => this.point(index === null ? null : [0, index], false),
      });
    }

    spectrum(k) {
      return k < 0 ? this.measured : this.spectra.subarray(k * this.channels, (k + 1) * this.channels);
    }

    addSpectrum(row, place, name) {
      const { spec } = this;
      const values = this.spectrum(row.k);
      if (!values) return;
      const kind = spec.sig.bars ? "bars" : "line";
      const series = [{ y: Array.from(values), kind, colour: row.k < 0 ? "var(--soft)" : colour(row.k), said: row.k < 0 ? "measured" : "" }];
      /* The interval of each channel, where a step has found one. */
      if (row.k >= 0 && this.bands) {
        const at = 2 * row.k * this.channels;
        series[0].low = Array.from(this.bands.subarray(at, at + this.channels));
        series[0].high = Array.from(this.bands.subarray(at + this.channels, at + 2 * this.channels));
      }
      if (row.k < 0 && this.model) series.push({ y: Array.from(this.model), kind: "model", said: "model" });
      const figure = make("div", { class: "plot" });
      place.append(figure);
      row.plot = new Plot(figure, {
        name: row.k < 0 ? "Sum spectrum" : `Spectrum of ${name}`,
        x: spec.sig.x,
        names: spec.sig.names,
        xLabel: spec.sig.label,
        xUnit: spec.sig.names ? undefined : spec.sig.unit,
        yLabel: row.k < 0 ? spec.sum.unit : spec.spectrumLabel,
        unit: row.k < 0 ? spec.sum.unit : spec.spectrumUnit,
        integers: spec.sig.bars,
        yscale: this.yscale,
        series,
        peaks: row.k < 0 ? spec.sum.peaks : spec.parts[row.k].peaks,
        height: 164,
        printed: 430,
        onCursor: (index) => this.cursorAt(index),
        onWindow: spec.sig.bars ? null : (range) => this.setWindow(range),
      });
      if (row.k < 0 && this.model) {
        row.legend = make("div", { class: "legend" }, make("span", {}, make("span", { class: "key", "aria-hidden": "true" }), "measured"), make("span", {}, make("span", { class: "key dashed", "aria-hidden": "true" }), "model"));
        row.legend.querySelector(".key").style.borderTopColor = "var(--soft)";
        row.here = make("div", { class: "legend", hidden: true }, make("span", {}, make("span", { class: "key", "aria-hidden": "true" }), "model of the pixel under the cursor"));
        place.append(row.legend, row.here);
      }
    }

    /* Diffraction: the component itself is an image. */
    addPattern(row, place, name) {
      const { spec } = this;
      const values = this.spectrum(row.k);
      if (!values || spec.sig.ndim !== 2) return;
      const own = { axes: spec.sig.axes, limit: [300, 190], cursor: null, pinned: false };
      const reading = make("p", { class: "reading" });
      const picture = new Picture(place, own, `Pattern of ${name}`);
      const positive = !values.some((v) => v < 0);
      const shown = positive ? values.map((v) => Math.sqrt(v)) : values;
      const range = positive ? rangeOf(shown) : signedRange(values);
      own.point = (at, spoken) => {
        own.cursor = at;
        picture.mark();
        const nx = own.axes[1].values.length;
        reading.textContent = at ? `${own.axes.map((a, i) => `${a.dim} ${withUnit(a.values[at[i]], a.unit)}`).join(", ")}: ${withUnit(values[at[0] * nx + at[1]], row.k < 0 ? spec.sum.unit : spec.spectrumUnit)}` : "";
        if (spoken) this.live.textContent = reading.textContent;
      };
      picture.fill(shown, range);
      place.append(make("div", { class: "scale" }, positive ? "square root of the intensity" : "blue below zero, red above"), reading);
    }

    // ----------------------------------------------------------------------------------------- the maps

    map(k) {
      const start = this.frame * this.pixels;
      if (k >= 0) {
        const each = this.maps.length / this.spec.parts.length;
        return this.maps.subarray(k * each + start, k * each + start + this.pixels);
      }
      if (this.window && this.spec.adds && this.maps) return this.windowMap();
      return this.total ? this.total.subarray(start, start + this.pixels) : null;
    }

    /* Counts that the model places in the window: sum over k of loading times share of the spectrum. */
    windowMap() {
      const [low, high] = this.window;
      const x = this.spec.sig.x;
      const out = new Float32Array(this.pixels);
      this.spec.parts.forEach((_, k) => {
        const values = this.spectrum(k);
        let share = 0;
        for (let i = 0; i < x.length; i++) if (x[i] >= low && x[i] <= high && Number.isFinite(values[i])) share += values[i];
        const map = this.map(k);
        for (let p = 0; p < out.length; p++) out[p] += share * map[p];
      });
      return out;
    }

    paintMaps() {
      for (const row of this.rows) {
        if (!row.picture && !row.profile) continue;
        if (this.labels) { this.paintLabels(row); continue; }
        const values = this.map(row.k);
        const windowed = row.k < 0 && this.window && this.spec.adds;
        const range = windowed ? rangeOf(values) : row.k < 0 ? this.spec.total.range : this.own ? this.spec.ranges[row.k] : this.spec.range;
        row.values = values;
        if (row.k < 0) row.note.textContent = windowed ? `${this.windowText()}: counts there by the model` : this.total ? "total of each pixel, and the sum over all pixels" : "";
        if (row.profile) {
          row.profile.spec.series = [{ y: Array.from(values), kind: "line", colour: row.k < 0 ? "var(--soft)" : colour(row.k) }];
          row.profile.paint();
          continue;
        }
        row.picture.fill(values, range);
        const unit = row.k < 0 ? this.spec.total.unit : this.spec.unit;
        row.scale.replaceChildren(...colourBar(range, unit));
        row.scale.style.maxWidth = `${Math.max(row.picture.width, 150)}px`;
      }
      this.tellPoint(false);
    }

    paintLabels(row) {
      const values = this.labels.subarray(this.frame * this.pixels, (this.frame + 1) * this.pixels);
      const style = getComputedStyle(document.documentElement);
      const of = (k) => d3.rgb(style.getPropertyValue(`--c${k % 16}`).trim());
      const rest = d3.rgb(style.getPropertyValue("--missing").trim());
      const colours = this.spec.parts.map((_, k) => of(k));
      row.values = values;
      row.picture.fill(values, null, (v) => (v < 0 ? null : row.k < 0 ? colours[v] : v === row.k ? colours[v] : rest));
      if (row.k < 0) row.note.textContent = "cluster of each pixel, and the sum over all pixels";
    }

    // ----------------------------------------------------------------------------------------- pointing

    point(at, spoken) {
      this.cursor = at;
      for (const row of this.rows) {
        if (row.picture) row.picture.mark();
        if (row.profile) row.profile.setCursor(at ? at[1] : null);
      }
      this.tellPoint(spoken);
    }

    tellPoint(spoken) {
      const at = this.cursor;
      const index = at ? at[0] * (this.axes.length === 2 ? this.axes[1].values.length : 1) * (this.axes.length === 2 ? 1 : 0) + at[1] : -1;
      const said = [];
      for (const row of this.rows) {
        if (!row.picture && !row.profile) continue;
        let text = "";
        if (at && this.labels) {
          const label = row.values[index];
          text = row.k < 0 ? (label < 0 ? "not used" : this.spec.parts[label].name) : "";
        } else if (at) text = withUnit(row.values[index], row.k < 0 ? this.spec.total.unit : this.spec.unit);
        row.reading.textContent = text ? `here ${text}` : "";
        if (text) said.push(`${row.k < 0 ? "all together" : this.spec.parts[row.k].name} ${text}`);
      }
      this.pixelSpectrum(at ? index : null);
      this.tell();
      if (spoken) this.live.textContent = at ? `${this.placeText()}: ${said.join("; ")}` : "cursor taken away";
    }

    /* Where spectra add up, the last row shows the model's spectrum of the pixel under the cursor. */
    pixelSpectrum(index) {
      const row = this.rows[this.rows.length - 1];
      if (!row || row.k >= 0 || !row.plot || !this.spec.adds || !this.maps || !this.model) return;
      if (index === null) {
        if (!this.pixelShown) return;
        this.pixelShown = false;
        row.plot.spec.series = this.whole;
      } else {
        const loadings = this.spec.parts.map((_, k) => this.map(k)[index]);
        if (!this.pixelShown) this.whole = row.plot.spec.series;
        this.pixelShown = true;
        const values = new Float64Array(this.channels);
        loadings.forEach((loading, k) => {
          const one = this.spectrum(k);
          if (Number.isFinite(loading)) for (let i = 0; i < values.length; i++) values[i] += loading * one[i];
        });
        row.plot.spec.series = [{ y: Array.from(values), kind: "line", colour: "var(--accent)", said: "model of this pixel" }];
      }
      // One pixel does not show every line that the sum does.
      row.plot.spec.least = this.pixelShown ? 0.05 : 0;
      row.legend.hidden = this.pixelShown;
      row.here.hidden = !this.pixelShown;
      row.plot.paint();
    }

    cursorAt(index) {
      if (index === this.channel) return;
      this.channel = index;
      for (const row of this.rows) {
        if (!row.plot) continue;
        row.value.textContent = row.plot.setCursor(index) === "not set" ? "" : row.plot.say(index);
      }
    }

    placeText() {
      const frame = this.spec.nav.frames[this.frame];
      const along = this.axes.map((axis, i) => {
        const value = axis.values[this.cursor[this.axes.length === 2 ? i : 1]];
        return `${axis.dim} ${typeof value === "number" ? withUnit(value, axis.unit) : value}`;
      });
      return [frame, ...along].filter((t) => t).join(", ");
    }

    tell() {
      const last = this.rows[this.rows.length - 1];
      if (last && last.k < 0) last.element.classList.toggle("held", this.spec.adds && (this.pinned || this.window !== null));
      const hints = [];
      if (this.cursor) hints.push(this.placeText() + (this.pinned ? " (click again to let go)" : ""));
      else if (this.rows.some((r) => r.picture || r.profile)) hints.push("Point at a map to read its values" + (this.spec.adds && this.model ? " and see that pixel's spectrum in the last row; click to hold it." : "."));
      if (!this.cursor && this.spec.sig.ndim === 1 && !this.spec.sig.bars) hints.push(this.spec.adds && this.maps ? "Drag over a spectrum to map what lies in a window." : "Drag over a spectrum to choose a window.");
      this.where.textContent = hints.join(" ");
    }

    // ------------------------------------------------------------------------------------ energy window

    windowText() {
      const [low, high] = this.window;
      return `${number(low)} to ${withUnit(high, this.spec.sig.unit)}`;
    }

    typed() {
      const values = this.fields.map((f) => (f.value === "" ? NaN : Number(f.value)));
      if (values.every(Number.isFinite) && values[0] < values[1]) this.setWindow(values);
    }

    setWindow(range) {
      this.window = range;
      for (const row of this.rows) if (row.plot) { row.plot.window = range; row.plot.showWindow(); }
      this.fields.forEach((field, i) => { field.value = range ? Number(range[i].toPrecision(4)) : ""; });
      this.buttons[0].disabled = !range;
      this.buttons[1].disabled = !range && !this.zoomed;
      this.paintMaps();
      this.tell();
      this.live.textContent = range ? `Window ${this.windowText()}` : "Whole range";
    }

    zoomTo(range) {
      this.zoomed = range;
      this.buttons[1].disabled = !range && !this.window;
      this.spectraChanged();
    }

    spectraChanged() {
      for (const row of this.rows) {
        if (!row.plot) continue;
        row.plot.spec.yscale = this.yscale;
        row.plot.zoom = this.zoomed || null;
        row.plot.paint();
      }
    }
  }

  function signedRange(values) {
    const end = d3.max(values, (v) => Math.abs(v)) || 1;
    return { low: -end, high: end, diverging: true };
  }

  // --------------------------------------------------------------------------------------------- start

  const groups = [];

  async function start(place) {
    if (place.dataset.begun) return;
    place.dataset.begun = "yes";
    const spec = data.groups.find((group) => group.id === place.dataset.parts);
    if (typeof DecompressionStream === "undefined") {
      place.append(make("p", { class: "caution" }, "This browser is too old to unpack the figures; browsers of 2023 and later do. Tables and texts are complete."));
      return;
    }
    const group = new Group(place, spec);
    await group.load();
    groups.push(group);
    place.dataset.ready = "yes";
  }

  const visible = (element) => !element.parentElement.closest("details:not([open])");

  function drawVisible() {
    for (const place of document.querySelectorAll("[data-curve]")) {
      if (!place.dataset.ready && visible(place)) { place.dataset.ready = "yes"; drawCurve(place); }
    }
    return Promise.all([...document.querySelectorAll("[data-parts]")].filter(visible).map(start));
  }

  for (const element of document.querySelectorAll("details")) element.addEventListener("toggle", drawVisible);

  // Paper has nothing to unfold. What takes time to draw (closed steps) is drawn at once, in so far as it can be.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter((d) => !d.querySelector("[data-parts]:not([data-ready])"));
    for (const element of opened) element.open = true;
    drawVisible();
    repaintAll(true);
  });
  window.addEventListener("afterprint", () => { repaintAll(false); for (const element of opened) element.open = false; });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => groups.forEach((g) => g.paintMaps()));

  drawVisible().then(() => { document.documentElement.dataset.ready = "yes"; });
})();
