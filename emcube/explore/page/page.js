/* The explorer's page: shows the panes that the program sends, and sends what is asked for.
   Texts are set as text, never as HTML. Bokeh draws the plots and keeps the connection. */
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const state = {};
  const PANES = ["cube", "catalog", "view", "forms", "settings", "curve", "job", "outcomes", "comparison", "record", "notices", "busy"];
  const ESTIMATE = "estimate_n_components";
  let bridge = null, asked = 0, root = null, visit = null;

  // ------------------------------------------------------------------------------------ small helpers

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }

  const SVG = "http://www.w3.org/2000/svg";
  function draw(parent, tag, attributes = {}, text = null) {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  }

  /* Images fill the room they have, in their own proportions. */
  let aspect = null;
  function fit() {
    for (const space of all(".space")) {
      const plot = space.firstElementChild, width = space.clientWidth, height = space.clientHeight;
      if (!width || !height) continue;
      const wide = aspect ? Math.floor(Math.min(width, height / aspect)) : width;
      plot.style.width = `${wide}px`;
      plot.style.height = `${aspect ? Math.floor(wide * aspect) : height}px`;
    }
  }

  const tinted = (element, tint) => {
    if (tint !== null && tint !== undefined) element.style.setProperty("--colour", tint < 0 ? "var(--ink)" : `var(--c${tint % 16})`);
    return element;
  };

  function ask(what, more = {}) {
    if (!bridge) return;
    asked += 1;
    bridge.asked = JSON.stringify({ n: asked, do: what, ...more });
  }

  /* Give a field its value, unless somebody is typing in it. */
  function fill(field, value) {
    if (document.activeElement === field && field.matches("input:not([type=checkbox])")) return;
    if (field.type === "checkbox") field.checked = value;
    else if (field.value !== value) field.value = value;
  }

  /* Rebuild a part of the page and leave the focus where it was. */
  function rebuild(place, ...children) {
    const held = place.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    place.replaceChildren(...children);
    if (held) all("[data-focus]", place).find((element) => element.dataset.focus === held)?.focus();
  }

  function text(id, value) {
    const element = $(id);
    if (element.textContent !== value) element.textContent = value;
  }

  // ------------------------------------------------------------------------------------------ panes

  const show = {
    cube(cube) {
      const has = Boolean(cube && cube.has);
      $("welcome").hidden = has || !state.ready;
      $("work").hidden = !has;
      $("facts-pane").hidden = !has;
      text("title", has ? cube.title : "emcube explorer");
      $("title").title = has ? cube.title : "";
      text("subtitle", has ? cube.subtitle : "");
      document.title = has ? `${cube.title}: emcube explorer` : "emcube explorer";
      marked(cube ? cube.entry : "");
      if (!has) return;
      rebuild($("facts"), ...cube.facts.flatMap(([key, value]) => [make("dt", {}, key), make("dd", { tabindex: value.length > 300 ? "0" : null, dir: "auto" }, value)]));
      const select = $("image-name");
      rebuild(select, ...cube.images.map((name, i) => make("option", { value: i }, name)));
      select.disabled = cube.images.length < 2;
      if (state.view) select.value = String(state.view.image);
      positions(cube);
      windowFields(cube);
      binFields(cube);
    },

    catalog(catalog) {
      $("catalog").hidden = !catalog;
      if (!catalog) return;
      text("catalog-title", catalog.title || "Catalog");
      const shown = catalog.entries.length;
      text("entries-count", catalog.count === catalog.all ? `${catalog.all} datasets` : `${catalog.count} of ${catalog.all} datasets`);
      if (shown < catalog.count) text("entries-count", `${shown} of ${catalog.count} datasets are listed; search for the others`);
      rebuild($("entries"), ...catalog.entries.map((entry) => make("li", {}, make("button", {
        type: "button", "data-entry": entry.key, "data-focus": `entry ${entry.key}`, disabled: !entry.can, dir: "auto",
        on: { click: () => ask("choose", { entry: entry.key }) },
      }, make("b", {}, entry.title), entry.facts ? make("span", {}, entry.facts) : null,
      entry.problem ? make("span", { class: "problem" }, entry.problem) : null))));
      marked(state.cube ? state.cube.entry : "");
    },

    view(view) {
      if (!view) return;
      $("work").classList.toggle("one", Boolean(view.line));
      const pattern = Boolean(view.pattern);
      $("images").hidden = Boolean(view.flat);
      for (const tool of all("#work > .tools > .segments, #region, [data-do=reset-images]")) tool.hidden = Boolean(view.flat);
      $("plot-pattern").hidden = !pattern;
      $("plot-spectrum").hidden = pattern;
      $("spectrum-tools").hidden = pattern;
      $("lines").hidden = pattern;
      text("spectrum-title", pattern ? "Pattern" : "Spectrum");
      if (!view.region) return;
      fill($("image-name"), String(view.image));
      scale($("image-scale"), view.imageScale);
      scale($("map-scale"), view.map.scale);
      text("map-title", view.map.title);
      const note = view.reads.includes("map") ? "reading every pixel…" : view.map.note;
      text("map-note", note ? `(${note})` : "");
      $("map-note").title = view.map.note || "";
      $("plot-map").dataset.empty = view.map.empty ? `Drag over the ${view.map.empty} to see where those counts come from` : "";
      aspect = view.line || view.flat ? null : view.aspect;
      fit();
      text("image-said", `Image: ${$("image-name").selectedOptions[0]?.textContent || ""}. Drag to choose a region, or type one.`);
      text("map-said", `${view.map.title}. ${note || ""}`);
      text("spectrum-note", view.reads.includes("spectrum") ? `${view.spectrum.note}…` : view.spectrum.note);
      text("spectrum-said", view.spectrum.note);
      text("axis-x", pattern ? "" : view.spectrum.x);
      text("axis-y", pattern ? "" : view.spectrum.y);
      text("region-said", view.region.said);
      for (const name of ["clear-region", "keep-region", "drop-region"]) all(`[data-do=${name}]`)[0].disabled = !view.region.on;
      regionFields(view.region.fields);
      for (const field of all("#window input")) {
        const ends = view.window[field.dataset.dim];
        fill(field, ends ? ends[Number(field.dataset.end)] : "");
      }
      const framed = Object.keys(view.window).length > 0;
      for (const name of ["use-window", "clear-window"]) for (const b of all(`[data-do=${name}]`)) b.disabled = !framed;
      fill($("scaling"), view.scaling);
      fill($("elements"), view.elements);
      for (const slider of all("#positions input")) fill(slider, String(view.at[slider.dataset.dim] ?? 0)), said(slider);
      rebuild($("legend"), ...view.legend.map((one) => make("span", {}, tinted(make("i", { style: one.dashed ? "border-top-style:dashed" : null }), one.tint), one.label)));
      busy();
    },

    forms(forms) {
      if (!forms) return;
      rebuild($("estimate"), ...forms.filter((form) => form.verb === ESTIMATE).map(stepForm));
      const usual = forms.filter((form) => form.usual && form.verb !== ESTIMATE), others = forms.filter((form) => !form.usual);
      rebuild($("methods"), ...usual.map(stepForm), !others.length ? "" : make("details", { id: "more-methods" },
        make("summary", {}, `More methods: ${others.map((form) => form.title).join(", ")}`), ...others.map(stepForm)));
      if (state.settings) show.settings(state.settings);
    },

    settings(settings) {
      if (!settings) return;
      const items = settings.prepare.map((what, i) => make("li", {}, what, make("button", {
        type: "button", "aria-label": `Take away: ${what}`, "data-focus": `prepared ${i}`, on: { click: () => ask("unprepare", { number: i }) },
      }, "✕")));
      if (settings.used) items.push(make("li", { class: "note" }, settings.used));
      rebuild($("prepared"), ...items);
      all("[data-do=clear-prepare]")[0].disabled = !settings.prepare.length;
      for (const box of all(".method")) {
        const step = settings.steps.find((one) => one.name === box.dataset.step);
        box.classList.toggle("off", !step);
        fill(box.querySelector("[data-on]"), Boolean(step));
        for (const field of all("[data-parameter]", box)) {
          field.disabled = !step;
          const given = step ? step.values[field.dataset.parameter] : undefined;
          fill(field, given ?? (field.tagName === "SELECT" ? field.dataset.usual : ""));
        }
      }
      if (all("#more-methods .method:not(.off)").length) $("more-methods").open = true;
      const others = settings.steps.filter((one) => one.name !== one.verb || !all(".method").some((box) => box.dataset.step === one.name));
      rebuild($("other-steps"), ...others.map((step) => make("li", {}, `${step.name}: ${Object.entries(step.values).map(([k, v]) => `${k} ${v}`).join(", ")}`,
        make("button", { type: "button", "aria-label": `Leave out ${step.name}`, on: { click: () => ask("step", { step: step.name, on: false }) } }, "✕"))));
      const nothing = settings.steps.length === 0;
      for (const name of ["preview", "run"]) all(`[data-do=${name}]`)[0].disabled = nothing || Boolean(state.job && state.job.on);
    },

    curve(curve) {
      $("curve").hidden = !curve || curve.values.length === 0;
      text("curve-said", curve ? curve.said : "");
      if (curve) scree($("curve"), curve);
    },

    job(job) {
      const on = Boolean(job && job.on);
      $("progress").hidden = !on;
      for (const name of ["preview", "run", "curve"]) all(`[data-do=${name}]`)[0].disabled = on || (name !== "curve" && state.settings && !state.settings.steps.length);
      if (on) {
        text("progress-title", job.title);
        text("progress-said", job.said);
        if (job.fraction === null) $("progress-bar").removeAttribute("value");
        else $("progress-bar").value = job.fraction;
        const aloud = `${job.title}${job.part ? `: ${job.part}` : ""}`;
        text("progress-aloud", aloud);
      } else text("progress-aloud", "");
      busy();
    },

    outcomes(outcomes) {
      const found = outcomes || [];
      $("no-results").hidden = found.length > 0;
      $("results-count").hidden = found.length === 0;
      text("results-count", String(found.length));
      const before = Number($("outcomes").dataset.count || 0);
      $("outcomes").dataset.count = String(found.length);
      rebuild($("outcomes"), ...found.map((one) => outcome(one, found)));
      if (found.length > before) choose($("tab-results"));
      if (found.length === 0 && before) choose($("tab-steps"));
      for (const button of all("[data-keep]")) button.disabled = !found.some((one) => button.dataset.keep === "report" || !one.preview);
      if (state.comparison) show.comparison(state.comparison);
    },

    comparison(found) {
      for (const place of all(".matches")) place.replaceChildren();
      if (!found) return;
      const place = all(".matches").find((one) => Number(one.dataset.outcome) === found.keys[0]);
      if (!place) return;
      const rows = found.pairs.map(([a, b, angle]) => make("tr", {}, make("td", {}, make("button", {
        type: "button", on: { click: () => ask("part", { outcome: found.keys[0], step: found.keys[1], k: a, other: [found.keys[2], found.keys[3], b] }) },
      }, `${a} and ${b}`)), make("td", { class: "number" }, angle)));
      const alone = [[found.first, found.alone[0]], [found.second, found.alone[1]]].filter(([, which]) => which.length)
        .map(([name, which]) => make("p", { class: "note" }, `Without a partner in ${name}: ${which.join(", ")}`));
      rebuild(place, make("table", { "aria-label": `${found.first} and ${found.second}` }, make("thead", {}, make("tr", {},
        make("th", { scope: "col" }, `${found.first} and ${found.second}`), make("th", { scope: "col" }, "angle"))),
      make("tbody", {}, ...rows)), ...alone, make("p", { class: "note" }, found.note));
    },

    record(record) {
      const texts = record || { recipe: "", script: "", actions: [] };
      text("text-recipe", texts.recipe);
      text("text-script", texts.script);
      rebuild($("text-actions"), ...texts.actions.map((one) => make("li", {}, make("time", {}, one.at), one.verb, make("span", {}, one.what))));
      for (const id of ["show-recipe", "show-script"]) $(id).disabled = !record;
    },

    notices(notices) {
      const place = $("notices");
      const known = new Map(all("[data-id]", place).map((element) => [element.dataset.id, element]));
      const now = (notices || []).map((one) => known.get(String(one.id)) || notice(one));
      place.replaceChildren(...now);
    },

    busy() { busy(); },
  };

  function busy() {
    const names = (state.busy || []).filter(Boolean);
    const job = state.job && state.job.on ? state.job.title : "";
    const view = state.view || {};
    const reading = view.reading ? "Reading the cube once, for quick looks" : (view.reads || []).length ? "Reading from the data" : "";
    const said = names[0] || job || reading;
    document.querySelector(".status").classList.toggle("busy", Boolean(said));
    text("status", said ? `${said}…` : "Ready");
    text("place", view.cwd ? `in ${view.cwd}` : "");
  }

  function marked(entry) {
    for (const button of all("#entries button")) {
      if (button.dataset.entry === entry) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  function scale(place, one) {
    if (!one) return place.replaceChildren();
    if (one.keys) return place.replaceChildren(...one.keys.slice(0, 12).map((k) => make("span", { class: "key" }, tinted(make("i", { class: "swatch" }), k), String(k))));
    place.replaceChildren(one.low, make("i", { class: one.kind, "aria-hidden": "true" }), `${one.high} ${one.unit}`.trim());
    return undefined;
  }

  // ------------------------------------------------------------------------------ fields of the middle

  function positions(cube) {
    const others = cube.nav.slice(0, -2);
    const key = JSON.stringify(others.map((axis) => [axis.dim, axis.n]));
    if ($("positions").dataset.key === key) return;
    $("positions").dataset.key = key;
    rebuild($("positions"), ...others.map((axis) => make("label", {}, axis.label, make("input", {
      type: "range", min: 0, max: axis.n - 1, step: 1, value: 0, "data-dim": axis.dim,
      on: { input: (event) => { said(event.target); ask("position", { dim: axis.dim, at: Number(event.target.value) }); } },
    }), make("output", {}))));
    for (const slider of all("#positions input")) said(slider);
  }

  function said(slider) {
    const axis = state.cube?.nav.find((one) => one.dim === slider.dataset.dim);
    const words = axis?.said[Number(slider.value)] ?? slider.value;
    slider.setAttribute("aria-valuetext", words);
    slider.parentElement.querySelector("output").textContent = words;
  }

  function regionFields(fields) {
    const place = $("region-fields");
    const key = JSON.stringify(fields.map((one) => [one.dim, one.n]));
    if (place.dataset.key !== key) {
      place.dataset.key = key;
      rebuild(place, ...fields.map((one) => make("label", {}, one.label,
        make("span", {}, make("input", { inputmode: "numeric", "data-dim": one.dim, "data-end": "first", "aria-label": `${one.label}: first pixel` }), " to ",
          make("input", { inputmode: "numeric", "data-dim": one.dim, "data-end": "last", "aria-label": `${one.label}: last pixel` })))),
      make("button", { type: "submit" }, "Use these pixels"));
    }
    for (const field of all("input", place)) {
      const one = fields.find((f) => f.dim === field.dataset.dim);
      fill(field, String(one[field.dataset.end]));
    }
  }

  function windowFields(cube) {
    const place = $("window");
    const key = JSON.stringify(cube.sig.map((axis) => [axis.dim, axis.unit]));
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    const parts = cube.sig.slice(0, 2).flatMap((axis) => [0, 1].map((end) => make("input", {
      inputmode: "decimal", "data-dim": axis.dim, "data-end": end, "aria-label": `${axis.label}: ${end ? "end" : "start"} of the window`,
      placeholder: end ? "to" : axis.label,
    })).flatMap((input, end) => (end ? [make("span", {}, "to"), input, make("span", { class: "note" }, axis.unit)] : [input])));
    rebuild(place, ...parts, make("button", { class: "go" }, "Map"),
      make("button", { type: "button", "data-do": "clear-window", disabled: true }, "Clear"));
  }

  function binFields(cube) {
    const place = $("bin-fields");
    const dims = [...cube.nav, ...cube.sig];
    const key = JSON.stringify(dims.map((axis) => axis.dim));
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    rebuild(place, ...dims.map((axis) => make("label", {}, axis.label, make("input", { inputmode: "numeric", "data-dim": axis.dim, value: 1 }))),
      make("button", { type: "button", on: { click: () => {
        ask("bins", { factors: Object.fromEntries(all("input", place).map((field) => [field.dataset.dim, field.value])) });
        place.closest("details").open = false;
      } } }, "Bin"));
  }

  // --------------------------------------------------------------------------------- forms of the steps

  function stepForm(form) {
    const id = (name) => `${form.verb}-${name}`;
    const one = (f) => {
      const word = f.kind === "text" || f.kind === "yes or no";
      const on = { change: (event) => ask("set", { step: form.verb, name: f.name, value: event.target.value }) };
      const words = f.kind === "yes or no" ? ["no", "yes"] : f.choices;
      if (f.name === "on" && form.verb === "kmeans") return choice(f, [["", "spectra"], ["pca", "PCA scores"], ["nmf", "NMF loadings"]], "", on);
      if (word && words.length) return choice(f, words.map((w) => [w, w === "kullback-leibler" ? "Poisson (KL)" : w]), f.default, on);
      return make("label", { for: id(f.name) }, f.label, make("input", {
        id: id(f.name), "data-parameter": f.name, "data-usual": "", size: f.main ? 4 : 7, autocomplete: "off", placeholder: f.default === "none" ? "–" : f.default,
        title: f.choices.length ? `a number, or ${f.choices.join(" or ")}` : f.kind, on,
      }));
    };
    const choice = (f, words, usual, on) => make("label", { for: id(f.name) }, f.label, make("select", {
      id: id(f.name), "data-parameter": f.name, "data-usual": usual, on,
    }, ...words.map(([value, said]) => make("option", { value }, said))));
    const estimate = form.verb === ESTIMATE;
    const main = form.fields.filter((f) => f.main), more = form.fields.filter((f) => !f.main);
    return make("fieldset", { class: "method", "data-step": form.verb },
      make("legend", {}, make("label", { class: "check" }, make("input", {
        type: "checkbox", "data-on": true, on: { change: (event) => ask("step", { step: form.verb, on: event.target.checked }) },
      }), estimate ? "in the run, too" : form.title)),
      ...main.map(one),
      more.length ? make("details", { class: "more" }, make("summary", { "aria-label": `More parameters: ${form.title}` }, "More"), make("div", { class: "more-body" }, ...more.map(one))) : null);
  }

  /* The curve of the number of components. A click on a value takes that many. */
  function scree(place, curve) {
    const width = place.clientWidth || 280, height = 128, left = 34, right = 6, top = 8, bottom = 24;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Singular values over the noise, by component. ${curve.said}`);
    const values = curve.values.map((v) => Math.max(v, 1e-6));
    const n = values.length;
    const low = Math.log10(Math.min(...values, curve.threshold || Infinity)) - 0.08;
    const high = Math.log10(Math.max(...values, curve.threshold || 0)) + 0.08;
    const x = (i) => left + ((i + 0.5) / n) * (width - left - right);
    const y = (v) => top + ((high - Math.log10(v)) / (high - low || 1)) * (height - top - bottom);
    const ticks = [];
    for (let p = Math.floor(low); p <= high; p++) for (const f of [1, 2, 5]) { const v = f * 10 ** p; if (Math.log10(v) > low && Math.log10(v) < high) ticks.push(v); }
    for (const v of ticks.filter((v, i) => ticks.length < 5 || i % Math.ceil(ticks.length / 4) === 0)) {
      draw(svg, "line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) });
      draw(svg, "text", { x: left - 5, y: y(v) + 3.5, "text-anchor": "end" }, String(Number(v.toPrecision(2))));
    }
    draw(svg, "line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom });
    if (curve.threshold > 0) {
      draw(svg, "line", { class: "threshold", x1: left, x2: width - right, y1: y(curve.threshold), y2: y(curve.threshold) });
      draw(svg, "text", { x: width - right, y: y(curve.threshold) - 4, "text-anchor": "end" }, "noise");
    }
    draw(svg, "path", { d: values.map((v, i) => `${i ? "L" : "M"}${x(i)},${y(v)}`).join("") });
    values.forEach((v, i) => {
      draw(svg, "circle", { cx: x(i), cy: y(v), r: n > 20 ? 2.6 : 3.4, class: curve.n !== null && i < curve.n ? "in" : "" });
      if (i === 0 || (i + 1) % 5 === 0) draw(svg, "text", { x: x(i), y: height - bottom + 14, "text-anchor": "middle" }, String(i + 1));
      const hit = draw(svg, "rect", { class: "hit", x: x(i) - (width - left - right) / n / 2, width: (width - left - right) / n, y: top, height: height - top - bottom });
      draw(hit, "title", {}, `Take ${i + 1} components (${Number(curve.values[i].toPrecision(4))})`);
      hit.addEventListener("click", () => ask("parts", { n: i + 1 }));
    });
    place.replaceChildren(svg);
    const note = make("span", { class: "note" }, "or click a value");
    if (curve.n !== null) place.append(make("div", { class: "line" }, make("button", { type: "button", on: { click: () => ask("parts", { n: curve.n }) } }, `Use ${curve.n} components`), note));
  }

  // ------------------------------------------------------------------------------------------ results

  const rank = (step) => ({ kmeans: 1, pca: 2 })[step.verb] || 0;
  const opened = new Map();

  function outcome(one, found) {
    const steps = [...one.steps].sort((a, b) => rank(a) - rank(b)).map((step) => {
      const parts = step.parts.map((part) => partButton(one, step, part));
      if (step.verb === "kmeans") parts.unshift(partButton(one, step, { k: -1, name: "All clusters", lines: "", share: "", thumb: "", spark: [] }));
      const held = opened.get(`${one.number} ${step.step}`) ?? (step.verb !== "pca" || one.steps.length === 1);
      return make("details", { open: held, on: { toggle: (event) => opened.set(`${one.number} ${step.step}`, event.target.open) } },
        make("summary", { "data-focus": `step ${one.number} ${step.step}` }, `${step.title}: ${step.parts.length}`), make("div", { class: "parts", role: "group", "aria-label": step.title }, ...parts));
    });
    const others = found.filter((other) => other.number !== one.number);
    return make("article", { class: "outcome" },
      make("header", {}, make("h3", {}, `${one.number}: ${one.title}`), one.preview ? make("span", { class: "preview" }, "binned") : null, make("span", { class: "note" }, one.took)),
      make("p", { class: "id" }, one.of),
      make("p", { class: "id", title: one.run_id }, "run_id ", make("code", { "data-run-id": one.number }, one.run_id)),
      ...steps,
      others.length ? make("div", { class: "compare" }, make("label", {}, "Compare with ", make("select", { "data-focus": `compare ${one.number}` },
        ...others.map((other) => make("option", { value: other.number }, `${other.number}: ${other.title} of ${other.of}`)))),
      make("button", { type: "button", "data-focus": `go ${one.number}`, on: { click: (event) => ask("compare", {
        first: one.number, second: Number(event.target.closest(".compare").querySelector("select").value) }) } }, "Compare")) : null,
      make("div", { class: "matches", "data-outcome": one.number }));
  }

  function partButton(one, step, part) {
    const chosen = one.chosen && one.chosen[0] === one.number && one.chosen[1] === step.step && one.chosen[2] === part.k;
    const spark = document.createElementNS(SVG, "svg");
    spark.setAttribute("viewBox", "0 0 100 22");
    spark.setAttribute("preserveAspectRatio", "none");
    spark.setAttribute("aria-hidden", "true");
    if (part.spark.length > 1) {
      draw(spark, "path", { d: part.spark.map((v, i) => `${i ? "L" : "M"}${(100 * i / (part.spark.length - 1)).toFixed(1)},${(21 - 20 * v).toFixed(1)}`).join("") });
    }
    return tinted(make("button", {
      type: "button", "aria-pressed": String(Boolean(chosen)), "data-focus": `part ${one.number} ${step.step} ${part.k}`, "data-part": part.k,
      on: { click: () => ask("part", { outcome: one.number, step: step.step, k: part.k }) },
    }, make("i", { class: "swatch" }), part.thumb ? make("img", { src: part.thumb, alt: "" }) : make("span", {}),
    make("span", { class: "words" }, part.name, part.lines ? make("b", {}, ` ${part.lines}`) : null, part.share ? make("small", {}, ` ${part.share}`) : null, part.spark.length > 1 ? spark : null)), part.k < 0 ? null : part.k);
  }

  // ------------------------------------------------------------------------------------------ messages

  function notice(one) {
    const body = make("div", { class: "text" }, make("p", { dir: "auto" }, make("b", {}, `${one.head}: `), one.what));
    if (one.hint) body.append(make("p", { dir: "auto" }, `What to do: ${one.hint}.`));
    for (const note of one.notes || []) body.append(make("p", { dir: "auto" }, note));
    if (one.more) body.append(make("details", {}, make("summary", {}, "Details for a report"), make("pre", { tabindex: "0" }, one.more)));
    if (one.link) body.append(make("p", {}, make("a", { href: `files/${encodeURIComponent(visit)}/${encodeURIComponent(one.link)}`, target: "_blank", rel: "noopener noreferrer" }, "Open it")));
    return make("div", { class: `notice ${one.kind}`, "data-id": one.id }, body,
      make("button", { type: "button", "aria-label": "Dismiss this message", on: { click: () => ask("dismiss", { id: one.id }) } }, "✕"));
  }

  function trouble(head, what) {
    $("notices").replaceChildren(notice({ id: "page", kind: "error", head, what, hint: "" }));
    text("status", head);
    document.querySelector(".status").classList.remove("busy");
  }

  // ------------------------------------------------------------------------------ tabs, drawer, dialogs

  function choose(tab) {
    const list = tab.closest("[role=tablist]");
    for (const other of all("[role=tab]", list)) {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      $(other.getAttribute("aria-controls")).hidden = !on;
    }
  }

  function drawer(tab) {
    const open = tab !== null;
    $("drawer").hidden = !open;
    if (open) choose($(tab));
    for (const [id, of] of [["show-recipe", "tab-recipe"], ["show-script", "tab-script"]]) $(id).setAttribute("aria-expanded", String(open && tab === of));
    if (open) ask("record");
  }

  const KEEP = {
    save: ["Save", "Keeps the result, its recipe, its script and the record of this visit in a new folder.", "Folder", "saved"],
    report: ["Report", "Writes one HTML file that opens anywhere, without emcube and without a network.", "File", "report.html"],
    publish: ["Publish", "Packs the result so that anybody can download it, read it, and run it again.", "File", "crate.zip"],
  };
  let keeping = "save";

  function keep(kind) {
    keeping = kind;
    const [title, what, label, usual] = KEEP[kind];
    text("keep-title", title);
    text("keep-what", what);
    text("keep-label", label);
    text("keep-yes", title);
    $("keep-path").value = usual;
    $("keep-overwrite").checked = false;
    const usable = (state.outcomes || []).filter((one) => kind === "report" || !one.preview);
    rebuild($("keep-outcome"), ...usable.map((one) => make("option", { value: one.number }, `${one.number}: ${one.title} of ${one.of}`)));
    rebuild($("keep-more"), ...(kind === "publish" ? [
      make("label", { class: "block" }, "Title", make("input", { id: "keep-titled", autocomplete: "off" })),
      make("label", { class: "block" }, "Creators", make("input", { id: "keep-creators", autocomplete: "off", placeholder: "Ada Lovelace (0000-0002-1825-0097)" })),
      make("label", { class: "block" }, "Licence", make("input", { id: "keep-license", autocomplete: "off", placeholder: "CC-BY-4.0" })),
      make("label", { class: "check" }, make("input", { type: "checkbox", id: "keep-data" }), "with the data"),
    ] : []));
    $("keep").showModal();
    $("keep-path").focus();
    $("keep-path").select();
  }

  function kept() {
    if ($("keep").returnValue !== "yes") return;
    const more = keeping === "publish" ? { title: $("keep-titled").value, creators: $("keep-creators").value, license: $("keep-license").value, data: $("keep-data").checked } : {};
    ask(keeping, { outcome: Number($("keep-outcome").value), path: $("keep-path").value, overwrite: $("keep-overwrite").checked, ...more });
  }

  function recordText() {
    const tab = all("#drawer [role=tab]").find((one) => one.getAttribute("aria-selected") === "true").id;
    if (tab === "tab-actions") return ["actions.txt", all("#text-actions li").map((li) => [...li.childNodes].map((c) => c.textContent).join(" ")).join("\n") + "\n"];
    return tab === "tab-recipe" ? ["recipe.yaml", $("text-recipe").textContent] : ["script.py", $("text-script").textContent];
  }

  async function copy() {
    const [, content] = recordText();
    try {
      await navigator.clipboard.writeText(content);
      text("record-note", "Copied");
    } catch {
      const panel = all("#drawer [role=tabpanel]").find((one) => !one.hidden);
      getSelection().selectAllChildren(panel);
      text("record-note", "Selected: press Ctrl+C");
    }
    setTimeout(() => text("record-note", ""), 4000);
  }

  function download() {
    const [name, content] = recordText();
    const link = make("a", { href: URL.createObjectURL(new Blob([content], { type: "text/plain" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // --------------------------------------------------------------------------------- plots and schemes

  function activate(name) {
    const tool = root?.get_model_by_name(name);
    if (tool) tool.active = true;
  }

  function tool(button, kind) {
    const group = button.closest("[role=radiogroup]");
    for (const other of all("[role=radio]", group)) {
      other.setAttribute("aria-checked", String(other === button));
      other.tabIndex = other === button ? 0 : -1;
    }
    const which = button.dataset[kind];
    if (kind === "tool") for (const picture of ["image", "map"]) activate(`${picture}-${which}`);
    else activate(`spectrum-${which}`);
  }

  const dark = () => {
    const chosen = document.documentElement.dataset.scheme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const tellScheme = () => ask("scheme", { dark: dark() });

  function scheme(chosen) {
    if (chosen === "auto") delete document.documentElement.dataset.scheme;
    else document.documentElement.dataset.scheme = chosen;
    try {
      if (chosen === "auto") localStorage.removeItem("emcube-scheme");
      else localStorage.setItem("emcube-scheme", chosen);
    } catch { /* storage is closed to this page */ }
    tellScheme();
  }

  // ---------------------------------------------------------------------------------- what is listened to

  const DO = {
    "cancel": () => ask("cancel"),
    "curve": () => ask("curve"),
    "preview": () => ask("preview"),
    "run": () => ask("run"),
  };

  function listen() {
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button) (DO[button.dataset.do] || (() => ask(button.dataset.do)))();
      for (const pop of all("details.pop[open]")) if (!pop.contains(event.target)) pop.open = false;
    });
    document.addEventListener("keydown", (event) => {
      const tab = event.target.closest("[role=tab], [role=radio]");
      if (tab && ["ArrowRight", "ArrowLeft"].includes(event.key)) {
        const group = all(`[role=${tab.getAttribute("role")}]`, tab.parentElement);
        const next = group[(group.indexOf(tab) + (event.key === "ArrowRight" ? 1 : group.length - 1)) % group.length];
        next.focus();
        next.click();
        event.preventDefault();
      }
      if (event.key === "Escape" && !$("keep").open) {
        const pop = event.target.closest("details.pop[open]");
        if (pop) { pop.open = false; pop.querySelector("summary").focus(); }
        else if (!$("drawer").hidden) drawer(null);
      }
      const typing = event.target.matches("input, select, textarea");
      if (event.key === "Enter" && event.target.matches("#settings input")) event.target.blur();
      if (!typing && (event.ctrlKey || event.metaKey) && event.key === "Enter") ask(event.shiftKey ? "run" : "preview");
    });
    for (const tab of all("[role=tab]")) tab.addEventListener("click", () => (tab.closest("#drawer") ? drawer(tab.id) : choose(tab)));
    for (const button of all("[data-tool]")) button.addEventListener("click", () => tool(button, "tool"));
    for (const button of all("[data-band]")) button.addEventListener("click", () => tool(button, "band"));
    for (const button of all("[data-keep]")) button.addEventListener("click", () => keep(button.dataset.keep));
    for (const group of all("[role=radiogroup]")) all("[role=radio]", group).forEach((one, i) => { one.tabIndex = i ? -1 : 0; });
    for (const form of all("form:not([method])")) form.addEventListener("submit", (event) => event.preventDefault());
    $("open").addEventListener("submit", () => ask("open", { source: $("open-source").value }));
    $("find").addEventListener("input", () => ask("find", { text: $("find-text").value }));
    $("region").addEventListener("submit", () => {
      const spans = {};
      for (const field of all("#region-fields input")) (spans[field.dataset.dim] ||= [])[field.dataset.end === "first" ? 0 : 1] = field.value;
      ask("region", { spans });
      all("#region details")[0].open = false;
    });
    $("window").addEventListener("submit", () => {
      const ends = {};
      for (const field of all("#window input")) (ends[field.dataset.dim] ||= [])[Number(field.dataset.end)] = field.value;
      ask("window", { ends });
    });
    $("lines").addEventListener("submit", () => ask("elements", { elements: $("elements").value }));
    $("elements").addEventListener("change", () => ask("elements", { elements: $("elements").value }));
    $("image-name").addEventListener("change", (event) => ask("image", { number: Number(event.target.value) }));
    $("scaling").addEventListener("change", (event) => ask("scaling", { scaling: event.target.value }));
    $("scheme").addEventListener("change", (event) => scheme(event.target.value));
    $("show-recipe").addEventListener("click", () => drawer($("show-recipe").getAttribute("aria-expanded") === "true" ? null : "tab-recipe"));
    $("show-script").addEventListener("click", () => drawer($("show-script").getAttribute("aria-expanded") === "true" ? null : "tab-script"));
    $("close-drawer").addEventListener("click", () => drawer(null));
    $("copy").addEventListener("click", copy);
    $("download").addEventListener("click", download);
    $("keep").addEventListener("close", kept);
    $("keep-cancel").addEventListener("click", () => $("keep").close("no"));
    const resized = new ResizeObserver(fit);
    for (const space of all(".space")) resized.observe(space);
    $("scheme").value = document.documentElement.dataset.scheme || "auto";
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tellScheme);
    window.addEventListener("beforeunload", (event) => { if (state.job && state.job.on) event.preventDefault(); });
  }

  // ------------------------------------------------------------------------------------- the connection

  /* A visit outlives a reload of its page: the same tab finds it again. */
  function remembered(value) {
    try {
      if (value === undefined) return sessionStorage.getItem("emcube-visit");
      sessionStorage.setItem("emcube-visit", value);
    } catch { /* storage is closed to this page: each load is a new visit */ }
    return null;
  }

  async function connect() {
    const answer = await fetch("visit", { method: "POST", body: JSON.stringify({ visit: remembered() }) });
    if (!answer.ok) throw new Error(await answer.text());
    const found = await answer.json();
    visit = found.visit;
    remembered(visit);
    const url = new URL("ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const places = found.roots.map((name) => $(`plot-${name}`) || make("div"));
    await Bokeh.embed.add_document_from_session(url.href, found.token, make("div"), places);
    wire();
  }

  function wire() {
    root = Bokeh.documents[Bokeh.documents.length - 1];
    bridge = root.get_model_by_name("bridge");
    for (const pane of PANES) {
      bridge.properties[pane].change.connect(() => take(pane));
    }
    root.on_event("connection_lost", () => trouble("The connection was lost", "Trying to reach the program again. If it was stopped, start it again: emcube explore."));
    root.on_event("client_reconnected", () => location.reload());
    state.ready = true;
    for (const pane of PANES) take(pane);
    tellScheme();
    document.documentElement.dataset.ready = "yes";
  }

  function take(pane) {
    state[pane] = JSON.parse(bridge[pane]);
    show[pane](state[pane]);
  }

  listen();
  connect().catch((error) => trouble("No connection to the program", `${error.message || error} If it was stopped, start it again: emcube explore.`));
})();
