/* The photos of a finished job: cards, the ring around the coverage map, and the timelines. */

import { clock, enliven, label, percent, side } from "./components.js";
import { ask, find, h, sentence } from "./dom.js";
import { askWhether, openFrame, openPhoto } from "./viewer.js";

/** Fetches what a job chose: {job, selection, details}. */
export async function fetchResults(job) {
  const [selection, details] = await Promise.all(["selection.json", "details"].map((name) => ask(`/jobs/${job.id}/${name}`)));
  return { job, selection, details };
}

let current = null; // what the page shows

/** Shows what `fetchResults` found in `root`. */
export function showResults(root, results) {
  current = { root, ...results };
  render(current);
}

/**
 * Sends a change and shows the result; `focus` finds the element that gets the focus then.
 * Where the photos have changed meanwhile, shows them as they are, and throws what was said.
 */
export function change(state, path, body, said, focus) {
  // One after the other: each is based on the one before.
  const done = (state.saving ?? Promise.resolve()).then(() => send(state, path, body, said, focus));
  state.saving = done.catch(() => null);
  return done;
}

async function send(state, path, body, said, focus) {
  const address = `/jobs/${state.job.id}`;
  find("saved").textContent = "";
  let job;
  try {
    job = await ask(`${address}/${path}`, "PUT", { ...body, revision: state.job.revision });
  } catch (error) {
    if (error.status === 409) await refresh(state, await ask(address));
    throw error;
  }
  if (!(await refresh(state, job))) return;
  state.root.querySelector(focus)?.focus({ preventScroll: true });
  // Once the dialog that sent it is closed: what lies behind a dialog is not read out.
  setTimeout(() => (find("saved").textContent = said));
}

/** Shows the photos as they are now; false if the page shows something else by then. */
async function refresh(state, job) {
  Object.assign(state, await fetchResults(job));
  if (state !== current || find("results").hidden) return false;
  const top = window.scrollY;
  render(state);
  window.scrollTo(0, top);
  return true;
}

/** Says above the photos what went wrong. */
export function complain(text) {
  const box = find("result-problem");
  box.textContent = text;
  box.hidden = false;
  box.focus();
}

/** Every photo of the selection: name → {title, choice}; choice is null where a view is missing. */
export function photosOf(selection) {
  const photos = {};
  for (const [name, choice] of Object.entries(selection.attributes)) {
    photos[name] = { title: label(name), choice: choice.photo ? choice : null, value: choice };
  }
  for (const [view, choice] of Object.entries(selection.orientation?.views ?? {})) {
    photos[`view_${view}`] = { title: label(view), choice, view };
  }
  return photos;
}

/** The address of a photo; the revision makes the browser fetch an edited one anew. */
export function photoAddress(state, name, size) {
  return `/jobs/${state.job.id}/photos/${name}.jpg?size=${size}&v=${state.job.revision}`;
}

/** A link that downloads from a job; where there is no such job any more, tells it. */
export function download(state, selector, attributes, text, tell) {
  const onclick = async (event) => {
    if (!event.isTrusted) return; // ours, below
    event.preventDefault(); // a refusal would be a failed download that says nothing
    try {
      await ask(`/jobs/${state.job.id}`);
      link.click();
    } catch (error) {
      tell(error.message);
    }
  };
  const link = h(selector, { download: true, ...attributes, onclick }, text);
  return link;
}

/** How sure, in words that agree with the percentage beside them. */
export function sureness(fraction) {
  const certainty = Math.round(100 * fraction) / 100;
  if (certainty >= 0.85) return "very sure";
  if (certainty >= 0.6) return "fairly sure";
  if (certainty >= 0.35) return "not very sure";
  return "little more than a guess";
}

/** Whether a photo is of a value that the seller stated: then its probability counts, see docs/listing.md. */
export function isStated(choice) {
  return Boolean(choice.known) && choice.value !== null;
}

/** How well a photo shows what is said of an attribute: in words, and as a fraction. */
export function strength(name, choice) {
  const { probability, certainty } = choice;
  if (choice.value === null) return { words: `${percent(probability)} ${amount(name, choice.nearest)}`, share: probability, sure: "the nearest that the model knows" };
  if (isStated(choice)) return { words: `shows it ${percent(probability)}`, share: probability };
  return { words: `${percent(certainty)} certain`, share: certainty, sure: sureness(certainty) };
}

/** What the video looks like in an attribute, in words that do not promise. */
export function verdict(name, choice) {
  if (isStated(choice)) return `${amount(name, choice.value)}, as you state`;
  if (choice.value === null) return sentence(choice.reason).slice(0, -1);
  return `Looks like ${amount(name, choice.value)}`;
}

function amount(name, value) {
  return name === "doors" || name === "seats" ? `${value.replace(">5", "more than 5")} ${name}` : value;
}

function render(state) {
  const { selection, details, job, root } = state;
  root.className = selection.video.height > selection.video.width ? "portrait" : "";
  root.replaceChildren(
    head(state),
    ...[attributeCards(state), around(state), timelines(state)].filter(Boolean),
  );
  root.append(
    h(
      "section.meaning",
      { "aria-labelledby": "meaning-title" },
      h("h2", { id: "meaning-title" }, "What certainty is"),
      h("p", {}, "How much the model’s answer is concentrated on one value: 100% when all the probability is on it, 0% when every value is equally likely. It is high where the photo shows the attribute well."),
      h("p", {}, "It is not the chance that the answer is right, above all for a car unlike those that the model learnt from. Check what a photo says before you publish it."),
      h("p.aside", {}, `Chosen by carjax ${selection.model.version}, model ${selection.model.bundle}, from ${selection.video.scored_frames} of ${selection.video.frames} frames of “${job.name}”.`),
    ),
  );
  const pick = (name, row) => openFrame(state, name, row);
  enliven(root, details.series, pick);
}

function head(state) {
  const { selection, job } = state;
  const views = Object.values(selection.orientation?.views ?? {});
  const count = Object.values(photosOf(selection)).filter((photo) => photo.choice).length;
  const length = selection.video.duration_s < 1 ? "less than a second" : `${Math.round(selection.video.duration_s)} s`;
  const parts = [`${count} ${count === 1 ? "photo" : "photos"} from ${length} of video`];
  if (views.length) parts.push(`${views.filter(Boolean).length} of ${views.length} views found`);
  return h(
    "section.result-head",
    { "aria-labelledby": "result-title" },
    h("h1", { id: "result-title", tabindex: -1 }, "Your photos"),
    h("p.lead", {}, `${parts.join(" · ")}. Open a photo to swap it, to blur a number plate, or to see it larger.`),
    ...job.warnings.map((warning) => h("p.problem.mild", {}, sentence(warning))),
    h(
      "div.toolbar",
      {},
      download(state, "a.button.primary", { href: `/jobs/${job.id}/zip?v=${job.revision}`, id: "zip" }, "Download all", complain),
      crops(state),
      h("a.button", { href: "/" }, "New video"),
      h("button.button", { type: "button", id: "delete", onclick: () => askWhether("Delete the video and its photos?", "They are deleted from this server now, and cannot be had back. What you downloaded stays.", "Delete now", () => forget(state)) }, "Delete now"),
    ),
    h("p.problem", { id: "result-problem", role: "alert", tabindex: -1, hidden: true }),
  );
}

/** Deletes the job, and leaves its page and its place in the history. */
async function forget(state) {
  await ask(`/jobs/${state.job.id}`, "DELETE").catch((error) => {
    if (error.status !== 404) throw error;
  });
  location.replace("/");
}

function crops(state) {
  const names = { none: "Whole frame", "4:3": "4:3", "16:9": "16:9" };
  const field = h("fieldset.segments", {}, h("legend.unseen", {}, "Shape of the photos"));
  for (const [shape, text] of Object.entries(names)) {
    const input = h("input", { type: "radio", name: "crop", value: shape, checked: state.details.crop === shape });
    input.addEventListener("change", async () => {
      field.disabled = true;
      const said = shape === "none" ? "Photos show the whole frame" : `Photos are cut to the car at ${shape}`;
      await change(state, "crop", { crop: shape }, said, `input[value="${shape}"]`).catch((error) => {
        field.disabled = false;
        field.querySelector(`input[value="${state.details.crop}"]`).checked = true;
        complain(error.message);
      });
    });
    field.append(h("label", {}, input, h("span", {}, text)));
  }
  return field;
}

function photoButton(state, name, words, more = {}) {
  const video = state.selection.video;
  return h(
    "button.photo",
    { type: "button", "data-photo": name, "aria-label": `${words}. Open to swap or blur`, onclick: () => openPhoto(state, name), ...more },
    h("img", { src: photoAddress(state, name, "small"), alt: "", width: video.width, height: video.height, decoding: "async" }),
  );
}

function attributeCards(state) {
  const entries = Object.entries(state.selection.attributes);
  if (!entries.length) return null;
  return h(
    "section",
    { "aria-labelledby": "photos-title" },
    h("h2", { id: "photos-title" }, "What the car is"),
    h("div.cards", {}, ...entries.map(([name, choice]) => card(state, name, choice))),
  );
}

function card(state, name, choice) {
  const said = verdict(name, choice);
  if (!choice.photo) {
    return h(
      "article.card",
      {},
      h("div.photo.empty", {}, h("span", {}, "No photo")),
      h("div.body", {}, h("h3", {}, h("span.name", {}, label(name)), " ", h("span.value.none", {}, "Not found")), h("p.reason", {}, sentence(choice.reason))),
    );
  }
  const { words, share, sure } = strength(name, choice);
  const notes = [[sure, `at ${clock(choice.time_s)}`].filter(Boolean).join(", ")];
  if (choice.content === "part") notes.push("shows a part of the car");
  return h(
    "article.card",
    {},
    photoButton(state, name, `Photo for ${label(name).toLowerCase()}: ${said}, ${words}`),
    h(
      "div.body",
      {},
      h("h3", {}, h("span.name", {}, label(name)), " ", h(choice.value === null ? "span.value.none" : "span.value", {}, said)),
      h("p.certainty", {}, h("span", {}, h("strong", {}, words)), h("meter", { min: 0, max: 1, value: share, "aria-label": `How well it shows the ${label(name).toLowerCase()}` })),
      h("p.aside", {}, notes.join(" · ")),
      listing(choice),
    ),
  );
}

/** Where the seller stated a value: what the video says to that. */
function listing({ known }) {
  if (!known || known.verdict === "outside") return null; // which the card's heading says
  const says = {
    agrees: "The video agrees.",
    unsure: "The video neither confirms nor denies it.",
    disagrees: `Looks like ${known.looks_like}, listing says ${known.value}.`,
  }[known.verdict];
  return h(known.verdict === "disagrees" ? "p.listing.differs" : "p.listing.aside", {}, says);
}

function around(state) {
  const { orientation } = state.selection;
  if (!orientation) return null;
  const views = Object.entries(orientation.views);
  const missing = orientation.missing;
  const lead = missing.length
    ? `${views.length - missing.length} of ${views.length} views found. To complete them, film ${list(missing.map((view) => `the ${side(view)}`))}.`
    : `All ${views.length} views found.`;
  const map = h("figure.map");
  map.innerHTML = state.details.polar; // drawn by the server from numbers alone
  return h(
    "section",
    { "aria-labelledby": "around-title" },
    h("h2", { id: "around-title" }, "Around the car"),
    h("p.lead", {}, lead),
    h("div.ring", {}, map, ...views.map(([view, item]) => viewFigure(state, view, item))),
    h("p.note", {}, "The car is seen from above with its nose up; each photo stands where the camera stood. The blue area shows how much of the video looks at the car from each side."),
  );
}

function viewFigure(state, view, item) {
  const name = `view_${view}`;
  if (item === null) {
    const near = state.details.alternatives[name]?.length;
    return h(
      `figure.view.at-${view}`,
      { "data-view": view },
      near
        ? h("button.photo.empty", { type: "button", "data-photo": name, onclick: () => openPhoto(state, name) }, h("span", {}, `Film the ${side(view)}`), h("span.aside", {}, "or look at the nearest moments"))
        : h("div.photo.empty", {}, h("span", {}, `Film the ${side(view)}`)),
      h("figcaption", {}, h("strong", {}, label(view)), " ", h("span", {}, "missing")),
    );
  }
  const sure = `${percent(item.probability)} sure`;
  return h(
    `figure.view.at-${view}`,
    { "data-view": view },
    photoButton(state, name, `The car’s ${side(view)}, ${sure}`),
    h("figcaption", {}, h("strong", {}, label(view)), " ", h("span.aside", {}, item.content === "part" ? `part of the car · ${sure}` : sure)),
  );
}

function timelines(state) {
  if (!state.details.timelines.length) return null;
  const dot = (kind) => `<circle class="${kind}" cx="6" cy="6" r="4.5"/>`;
  const key = (mark, text) => {
    const item = h("li");
    item.innerHTML = `<svg class="key-mark" viewBox="0 0 12 12" aria-hidden="true">${mark}</svg> `;
    item.append(text);
    return item;
  };
  const shaded = state.details.timelines.some((timeline) => timeline.chart.includes('class="nocar"'));
  const charts = state.details.timelines.map((timeline) => {
    const figure = h(
      "figure.chart",
      { "data-series": timeline.name },
      h("figcaption", {}, h("h3", {}, timeline.heading), h("span.aside", {}, timeline.note)),
    );
    figure.insertAdjacentHTML("beforeend", timeline.chart); // drawn by the server; its text is escaped
    return figure;
  });
  return h(
    "section",
    { "aria-labelledby": "time-title" },
    h("h2", { id: "time-title" }, "Certainty over time"),
    h("p.lead", {}, "Click a point to see that frame."),
    h(
      "ul.legend",
      {},
      key(dot("chosen"), "chosen"),
      key(dot("alternative"), "next best"),
      shaded ? key('<rect class="nocar" width="12" height="12"/>', "no car recognised in the frame") : null,
    ),
    h("div.charts", {}, ...charts),
  );
}

function list(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
