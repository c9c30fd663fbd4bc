// Charts: the page says what they show, this draws it with plotly in the page's own colours.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "hexagon"];
const DASHES = ["dash", "dot", "dashdot", "longdash"];

export function startCharts() {
  const charts = [...document.querySelectorAll(".chart")];
  if (!charts.length || !window.Plotly) return;
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "400px" });
  for (const chart of charts) seen.observe(chart);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of document.querySelectorAll(".chart")) if (chart.querySelector(".js-plotly-plot")) draw(chart);
});

async function chartOf(figure) {
  const { source } = figure.dataset;
  if (!source) return JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const answer = await fetch(source);
  return answer.ok ? answer.json() : null;
}

async function draw(figure) {
  const chart = await chartOf(figure);
  if (!chart) return;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const plot = figure.querySelector(".plot");
  const { rows } = chart;
  if (rows.length) plot.style.height = `${Math.max(17, 5 + 1.6 * rows.length)}rem`;
  if (chart.matrix.length) return drawMatrix(plot, chart, colour);
  const traces = [...chart.lines.flatMap((line) => tracesOf(line, colour)), ...chart.spots.map((spot) => spotOf(spot, colour, rows))];
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true, fixedrange: true };
  const whole = !rows.length && chart.lines.length > 0 && chart.lines.every((line) => line.x.every(Number.isInteger));
  const longest = Math.max(...chart.lines.map((line) => line.x.length));
  window.Plotly.react(plot, traces, {
    ...sheetOf(colour),
    hovermode: chart.spots.length ? "closest" : "x unified",
    showlegend: traces.length > 1 && !rows.length,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: colour("ink") } },
    xaxis: { ...axis, title: { text: escaped(chart.x) }, type: chart.is_log ? "log" : "linear", ...(whole && longest <= 12 ? { dtick: 1 } : {}) },
    yaxis: rows.length ? { ...axis, ...named(rows.map(escaped)) } : { ...axis, title: { text: escaped(chart.y) } },
  }, { displayModeBar: false, responsive: true });
}

// Below 50 in one colour, above in another: columns go by the numbers of the rows, whose names may be long.
function drawMatrix(plot, { matrix, rows, x }, colour) {
  const numbers = rows.map((_, place) => `${place + 1}`);
  const axis = { automargin: true, fixedrange: true, zeroline: false, showgrid: false };
  const told = matrix.map((values, row) => values.map((value, column) => (value === null ? "" : `${escaped(rows[row])}, ${escaped(rows[column])}`)));
  window.Plotly.react(plot, [{
    type: "heatmap", z: matrix, customdata: told, zmin: 0, zmax: 100, xgap: 2, ygap: 2, showscale: false, hoverongaps: false,
    // Half as strong as lines are, so that the numbers in the page's ink are read on every one of them.
    colorscale: [[0, mixed(colour("series-1"), colour("sheet"))], [0.5, colour("sheet")], [1, mixed(colour("series-0"), colour("sheet"))]],
    texttemplate: "%{z:.0f}", textfont: { color: colour("ink") }, hovertemplate: "%{customdata}: %{z:.0f} %<extra></extra>",
  }], {
    ...sheetOf(colour),
    xaxis: { ...axis, ...named(numbers), range: [-0.5, rows.length - 0.5], side: "top", title: { text: escaped(x) } },
    yaxis: { ...axis, ...named(rows.map((name, place) => `${escaped(name)} ${place + 1}`)) },
  }, { displayModeBar: false, responsive: true });
}

// What stands at an axis of names: the first is at the top.
function named(names) {
  return { tickmode: "array", tickvals: names.map((_, place) => place), ticktext: names, range: [names.length - 0.5, -0.5], showgrid: false };
}

function sheetOf(colour) {
  return {
    autosize: true,
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
    hoverlabel: { bgcolor: colour("sheet"), bordercolor: colour("line"), font: { color: colour("ink") } },
  };
}

function tracesOf(line, colour) {
  const own = colour(line.kind === "null" ? "muted" : `series-${line.series % 6}`);
  const name = escaped(line.name);
  const base = { x: line.x, y: line.y, name, type: "scatter", legendgroup: name };
  if (line.kind === "seed") {
    return [{ ...base, mode: "lines", line: { color: own, width: 0.8 }, opacity: 0.45, showlegend: false, hoverinfo: "skip" }];
  }
  if (line.kind === "joint") {
    return [{ ...base, mode: "lines", line: { color: colour("muted"), width: 5 }, opacity: 0.6, hoverinfo: "skip" }];
  }
  const mode = line.x.length <= 32 ? "lines+markers" : "lines";
  if (line.kind.endsWith("null")) {
    const dash = line.kind === "null" ? DASHES[line.series % DASHES.length] : "dash";
    return [{ ...base, mode, line: { color: own, width: 1.3, dash }, marker: { size: 4, symbol: "square" } }];
  }
  const main = { ...base, mode, line: { color: own, width: 2.2 }, marker: { size: 6 } };
  if (!line.low.length) return [main];
  const edge = { x: line.x, type: "scatter", mode: "lines", line: { width: 0 }, showlegend: false, hoverinfo: "skip", legendgroup: name };
  return [
    { ...edge, y: line.low },
    { ...edge, y: line.high, fill: "tonexty", fillcolor: faint(own) },
    main,
  ];
}

function spotOf(spot, colour, rows) {
  const own = colour(`series-${spot.series % 6}`);
  const bar = (half) => ({ type: "data", array: [half ?? 0], visible: half !== null, color: own, thickness: 1, width: 0 });
  const [low, high] = spot.x_interval ?? [];
  const uneven = { ...bar(high - spot.x), symmetric: false, arrayminus: [spot.x - low] };
  const symbol = SYMBOLS[spot.series % SYMBOLS.length] + (spot.is_hollow ? "-open" : "");
  return {
    x: [spot.x], y: [spot.y], name: escaped(spot.name), type: "scatter", mode: "markers",
    marker: { size: 9, color: own, symbol, line: { width: 1.6, color: own } },
    error_x: spot.x_interval ? uneven : bar(spot.x_half_width), error_y: bar(spot.y_half_width),
    hovertemplate: `%{x:.4~g}${rows.length ? "" : ", %{y:.4~g}"}${spot.note ? `<br>${escaped(spot.note)}` : ""}`,
  };
}

function faint(colour) {
  return `rgba(${partsOf(colour)},0.16)`;
}

function mixed(one, other) {
  const others = partsOf(other);
  return `rgb(${partsOf(one).map((part, place) => Math.round((part + others[place]) / 2))})`;
}

function partsOf(colour) {
  return [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
}

// plotly reads a few tags in its texts: a name from a stranger is to be read as it is written.
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
