/* What the report and the page share: charts that can be read out point by point.
 *
 * The charts are drawn by timelines.py and polar.py and complete without this script. It adds a
 * cursor to each timeline (pointer, touch or arrow keys) and joins the ring's photos with their
 * arcs.
 * `series` is what series.py returns.
 */

/** A moment of the video as m:ss.s. */
export function clock(seconds) {
  const tenths = Math.round(Math.max(seconds, 0) * 10);
  const rest = tenths % 600;
  return `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}.${rest % 10}`;
}

/** A fraction as a whole percentage that never claims 0% or 100% by rounding. */
export function percent(fraction) {
  if (fraction >= 0.995 && fraction < 1) return ">99%";
  if (fraction > 0 && fraction < 0.005) return "<1%";
  return `${Math.round(100 * fraction)}%`;
}

/** The name of an attribute or a view as a heading. */
export function label(name) {
  const words = name.replaceAll("_", " ").replaceAll("-", " ");
  return words.slice(0, 1).toUpperCase() + words.slice(1);
}

/** The part of the car that a view shows, to complete “film the …”. */
export function side(view) {
  return view === "front" || view === "rear" ? view : `${view.replaceAll("-", " ")} side`;
}

/** What the model says of one frame, in words: of an attribute, or of the direction. */
export function reading(series, name, row) {
  const of = series.attributes[name];
  if (of) {
    if (of.certainty[row] === null) return "no valid score";
    return `${of.classes[of.label[row]]}, certainty ${percent(of.certainty[row])}`;
  }
  if (series.azimuth_deg?.[row] == null) return "no valid score";
  const view = series.views[series.view[row]].replaceAll("-", " ");
  const angle = `${Math.round(series.azimuth_deg[row]) % 360}°`;
  if (name === "kappa") return `κ ${Math.round(series.kappa[row])}, ${angle}`;
  return `${view}, ${angle}, ${percent(series.view_probability[row])} sure`;
}

/** The row of the frame nearest to a time; times increase. */
export function nearest(times, time) {
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low > 0 && time - times[low - 1] <= times[low] - time ? low - 1 : low;
}

/**
 * Makes each `figure.chart[data-series]` under `root` a slider over the frames, with a read-out.
 *
 * `pick(name, row)`, if given, is called on a click, a tap, Enter or Space.
 */
export function enliven(root, series, pick = null) {
  for (const figure of root.querySelectorAll("figure.chart[data-series]")) {
    const svg = figure.querySelector("svg.timeline");
    if (svg && !figure.dataset.alive) slider(figure, svg, series, pick);
  }
  for (const view of root.querySelectorAll(".view[data-view]")) {
    const arc = root.querySelector(`.polar [data-view="${view.dataset.view}"]`);
    const lit = (on) => () => arc?.classList.toggle("lit", on);
    view.addEventListener("pointerenter", lit(true));
    view.addEventListener("pointerleave", lit(false));
    view.addEventListener("focusin", lit(true));
    view.addEventListener("focusout", lit(false));
  }
}

function slider(figure, svg, series, pick) {
  const name = figure.dataset.series;
  const [left, top, right, bottom, end, low, high] = svg.dataset.plot.split(" ").map(Number);
  const last = series.frame.length - 1;
  const chosen = svg.querySelector("circle.chosen");
  let row = chosen ? nearest(series.time_s, at(+chosen.getAttribute("cx"))) : 0;

  const track = document.createElement("div");
  track.className = "track-area";
  track.tabIndex = 0;
  track.setAttribute("role", "slider");
  track.setAttribute("aria-label", `${figure.querySelector("h3")?.textContent ?? label(name)}, frame by frame`);
  track.setAttribute("aria-valuemin", "0");
  track.setAttribute("aria-valuemax", String(last));
  svg.replaceWith(track);
  track.append(svg);
  const said = document.createElement("p");
  said.className = "unseen";
  said.textContent = svg.getAttribute("aria-label");
  track.before(said);
  svg.removeAttribute("aria-label");
  svg.setAttribute("aria-hidden", "true");
  const cursor = svg.appendChild(element(svg, "g", { class: "cursor" }));
  const line = cursor.appendChild(element(svg, "path", { class: "cursor-line" }));
  const dot = cursor.appendChild(element(svg, "circle", { class: "cursor-dot", r: 4.5 }));
  const readout = document.createElement("p");
  readout.className = "readout";
  track.after(readout);
  figure.dataset.alive = "true";
  show(row);
  const resting = pick ? "Point at the line to read it; click to see that frame." : "Point at the line to read it.";
  readout.textContent = resting;

  function at(x) {
    return ((x - left) / (right - left)) * end;
  }

  function height(index) {
    const column = { direction: series.azimuth_deg, kappa: series.kappa }[name];
    let value = (column ?? series.attributes[name]?.certainty)?.[index];
    if (value == null || !Number.isFinite(value)) return null;
    if (name === "direction") value = mod(value - low, 360) + low;
    if (name === "kappa") value = Math.log10(Math.max(value, 0.1));
    return bottom - (bottom - top) * Math.min(Math.max((value - low) / (high - low), 0), 1);
  }

  function show(index) {
    row = Math.min(Math.max(index, 0), last);
    const x = left + (right - left) * Math.min(series.time_s[row] / end, 1);
    const y = height(row);
    line.setAttribute("d", `M${x} ${top}V${bottom}`);
    dot.setAttribute("visibility", y === null ? "hidden" : "inherit");
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y ?? bottom);
    const text = `${clock(series.time_s[row])}: ${reading(series, name, row)}`;
    readout.textContent = `${text} · frame ${series.frame[row]}`;
    track.setAttribute("aria-valuenow", String(row));
    track.setAttribute("aria-valuetext", text);
  }

  function follow(event) {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    figure.classList.add("reading");
    show(nearest(series.time_s, at(x)));
  }

  function rest() {
    if (document.activeElement === track) return;
    figure.classList.remove("reading");
    readout.textContent = resting;
  }

  track.addEventListener("pointermove", follow);
  track.addEventListener("pointerdown", follow);
  track.addEventListener("pointerleave", rest);
  track.addEventListener("focus", () => {
    figure.classList.add("reading");
    show(row);
  });
  track.addEventListener("blur", rest);
  track.addEventListener("click", (event) => {
    follow(event);
    pick?.(name, row);
  });
  track.addEventListener("keydown", (event) => {
    const to = {
      ArrowRight: row + 1,
      ArrowUp: row + 1,
      ArrowLeft: row - 1,
      ArrowDown: row - 1,
      PageUp: row + 10,
      PageDown: row - 10,
      Home: 0,
      End: last,
    }[event.key];
    if (to !== undefined) show(to);
    else if (pick && (event.key === "Enter" || event.key === " ")) pick(name, row);
    else return;
    event.preventDefault();
  });
}

function element(svg, tag, attributes) {
  const made = document.createElementNS(svg.namespaceURI, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function mod(a, n) {
  return ((a % n) + n) % n;
}
