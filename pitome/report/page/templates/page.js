"use strict";
(() => {
  // ---- records, figures and the plotting library are packed; the tables stand before they are unpacked
  async function unpack(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (one) => one.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  let figures;
  const records = unpack("records").then(JSON.parse);
  const plotting = Promise.all([unpack("figures"), unpack("plotly")]).then(([made, library]) => {
    figures = JSON.parse(made);
    document.head.append(Object.assign(document.createElement("script"), { textContent: library }));
  });
  const views = [...document.querySelectorAll(".view")];
  const jump = document.getElementById("jump");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  // ---- plots: drawn when first seen, coloured as the page is
  function draw(chart) {
    const panels = figures[chart.dataset.view][Number(chart.dataset.plot)];
    const select = chart.parentElement.querySelector("select.panel");
    const { data, layout } = JSON.parse(panels[select ? select.value : Object.keys(panels)[0]]);
    chart.style.height = layout.height ? `${layout.height}px` : "";
    const ink = css("--ink"), grid = css("--grid"), series = css("--series").split(/\s+/);
    for (const trace of data) {
      const colour = trace.meta.series < 0 ? ink : series[trace.meta.series % series.length];
      trace.line.color = colour;
      trace.marker.color = colour;
      if (trace.error_x) trace.error_x.color = colour;
    }
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, { gridcolor: grid, linecolor: grid, showgrid: true });
    }
    for (const shape of layout.shapes || []) shape.type === "rect" ? shape.fillcolor = ink : shape.line.color = css("--soft");
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: getComputedStyle(document.body).fontFamily, size: 12 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: ink },
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: ink } },
      uirevision: select ? select.value : "one",
    });
    Plotly.react(chart, data, layout, { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
    Plotly.Plots.resize(chart);  // the window may have changed while the plot was out of sight
    if (!chart.dataset.reached) chart.on("plotly_afterplot", () => reach(chart));
    chart.dataset.reached = "yes";
    reach(chart);
  }
  // Plotly's legend is for the mouse alone: make its entries buttons.
  function reach(chart) {
    chart.querySelectorAll(".legend .traces").forEach((entry) => {
      const button = entry.querySelector(".legendtoggle"), name = entry.querySelector(".legendtext").dataset.unformatted;
      const group = chart.data.find((one) => one.name === name && one.showlegend).legendgroup;
      const members = [...chart.data.keys()].filter((one) => chart.data[one].legendgroup === group);
      const shown = () => chart.data[members[0]].visible !== "legendonly";
      for (const [key, value] of Object.entries({ tabindex: 0, role: "button", "aria-label": name, "aria-pressed": shown() })) {
        button.setAttribute(key, value);
      }
      button.onkeydown = (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        Plotly.restyle(chart, { visible: shown() ? "legendonly" : true }, members).then(() =>
          [...chart.querySelectorAll(".legendtoggle")].find((one) => one.getAttribute("aria-label") === name).focus());
      };
    });
  }
  const charts = (view) => [...view.querySelectorAll(".chart")];
  const redraw = () => plotting.then(() => views.filter((view) => !view.hidden).flatMap(charts).forEach(draw));
  document.querySelectorAll("select.panel").forEach((select) =>
    select.addEventListener("change", () => plotting.then(() => draw(select.closest("figure").querySelector(".chart")))));

  // ---- one view at a time, by the address
  function show() {
    const [key, row] = (decodeURIComponent(location.hash.slice(1)) || "overview").split("/");
    const wanted = document.getElementById(`view-${key}`);
    if (!wanted && key !== "main") return go("overview");
    if (!wanted) return;
    for (const view of views) view.hidden = view !== wanted;
    jump.value = key;
    document.title = `${wanted.querySelector("h1").textContent} - pitome`;
    redraw();
    window.scrollTo(0, 0);
    document.querySelectorAll("tr.linked").forEach((other) => other.classList.remove("linked"));
    const linked = row && wanted.querySelector(`tr[data-row="${CSS.escape(row)}"]`);
    if (!linked) return;
    linked.classList.add("linked");
    const more = linked.querySelector(".more");
    if (more.getAttribute("aria-expanded") === "false") toggle(more);
    linked.scrollIntoView({ block: "center" });
  }
  const go = (key) => { location.hash = key; };
  jump.addEventListener("change", () => go(jump.value));
  window.addEventListener("hashchange", () => { show(); document.getElementById("main").focus({ preventScroll: true }); });

  // ---- colours: as the system, light, dark
  const theme = document.getElementById("theme"), names = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  function setTheme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.querySelector("span").textContent = name[0].toUpperCase() + name.slice(1);
    theme.setAttribute("aria-label", `Colours: ${name === "auto" ? "as the system" : name}`);
    theme.dataset.name = name;
  }
  theme.addEventListener("click", () => {
    const next = names[(names.indexOf(theme.dataset.name) + 1) % names.length];
    setTheme(next);
    try { localStorage.setItem("theme", next); } catch { /* a file may have no storage */ }
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  setTheme(names.includes(stored()) ? stored() : "auto");

  // ---- tables: sorting, filters, details
  const close = (table) => table.querySelectorAll("tr.detail").forEach((row) => {
    row.previousElementSibling.querySelector(".more").setAttribute("aria-expanded", "false");
    row.remove();
  });
  const keyOf = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === "" ? null : text !== undefined && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  function compare(a, b) {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1;
  }
  document.querySelectorAll("table").forEach((table) => {
    const body = table.tBodies[0], original = [...body.rows];
    table.querySelectorAll("thead th[aria-sort]").forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        close(table);
        // Numbers from high to low first, words from A to Z, then the other way, then as written.
        const steps = head.classList.contains("num") ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
        const order = steps[(steps.indexOf(head.getAttribute("aria-sort")) + 1) % steps.length];
        table.querySelectorAll("thead th[aria-sort]").forEach((other) => { other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = order === "none" ? original : [...original].sort((left, right) => {
          const a = keyOf(left, column), b = keyOf(right, column);
          if (a === null || b === null) return (a === null) - (b === null);  // nothing comes last
          return sign * compare(a, b);
        });
        body.append(...rows);
      });
    });
    body.addEventListener("click", (event) => {
      const button = event.target.closest(".more");
      if (button) toggle(button);
    });
  });
  document.querySelectorAll("form.filters").forEach((form) => {
    const rows = [...form.closest(".view").querySelectorAll("tbody tr")];
    const apply = () => {
      close(form.closest(".view").querySelector("table"));
      const chosen = [...form.querySelectorAll("[data-filter]")].filter((field) => field.value.trim() !== "");
      let shown = 0;
      for (const row of rows) {
        row.hidden = !chosen.every((field) => field.dataset.filter === "text"
          ? `${row.textContent} ${row.dataset.note}`.toLowerCase().includes(field.value.trim().toLowerCase())
          : row.dataset[field.dataset.filter] === field.value);
        shown += !row.hidden;
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
    };
    form.addEventListener("input", (event) => { if (!event.target.closest(".columns")) apply(); });
    // ---- which columns are seen, and what is seen as CSV
    const table = form.closest(".view").querySelector("table"), heads = [...table.tHead.rows[0].cells].slice(0, -1);
    const text = (cell) => cell.textContent.trim();
    form.querySelector(".columns div").append(...heads.map((head, column) => {
      const box = make("input", { type: "checkbox", defaultChecked: true });
      box.addEventListener("change", () => {
        close(table);
        for (const row of [table.tHead.rows[0], ...rows]) row.cells[column].hidden = !box.checked;
      });
      return make("label", {}, box, text(head));
    }));
    form.querySelector(".csv").addEventListener("click", () => {
      close(table);
      const lines = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) =>
        [...row.cells].slice(0, -1).filter((cell) => !cell.hidden).map((cell) => `"${text(cell).replaceAll('"', '""')}"`).join(","));
      const file = new Blob([lines.join("\n") + "\n"], { type: "text/csv" });
      const link = make("a", { href: URL.createObjectURL(file), download: `${form.dataset.view}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    form.addEventListener("reset", () => setTimeout(() => {
      apply();
      form.querySelectorAll(".columns input").forEach((box) => box.dispatchEvent(new Event("change")));
    }));
    form.addEventListener("submit", (event) => event.preventDefault());
  });

  function toggle(button) {
    const row = button.closest("tr"), open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) return row.nextElementSibling.remove();
    const inner = make("div", { className: "inner" });
    const view = row.closest(".view").id.replace("view-", "");
    inner.append(make("p", {}, make("a", { href: `#${encodeURIComponent(view)}/${row.dataset.row}`, textContent: "Link to this row" })));
    if (row.dataset.note) inner.append(make("p", { textContent: row.dataset.note }));
    if (row.dataset.command) {
      const code = make("code", { textContent: row.dataset.command });
      const copy = make("button", { type: "button", className: "copy", textContent: "Copy" });
      copy.addEventListener("click", () => {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");  // works in a file, where the clipboard interface does not
        copy.textContent = "Copied";
      });
      inner.append(make("div", { className: "line" }, code, copy));
    }
    if (row.dataset.tokens) inner.append(make("p", { textContent: `Tokens layer by layer: ${row.dataset.tokens.split(" ").join(", ")}` }));
    if (row.dataset.against) {
      const pairs = row.dataset.against.split("|").map((text) => make("li", { textContent: text }));
      inner.append(make("p", { textContent: "Against, in percentage points with the paired 95 % interval; p after Holm's correction:" }),
        make("ul", {}, ...pairs));
    }
    records.then((known) => {
      for (const id of row.dataset.records.split(" ").filter((one) => one in known)) {
        const { file, record } = known[id];
        inner.append(make("details", {}, make("summary", { textContent: `Record ${id}` }),
          make("p", {}, "File: ", make("a", { href: file, textContent: file })),
          make("pre", { textContent: JSON.stringify(record, null, 1), tabIndex: 0 })));
      }
    });
    const cell = make("td", { colSpan: row.cells.length }, inner);
    row.after(make("tr", { className: "detail" }, cell));
  }

  show();
})();
