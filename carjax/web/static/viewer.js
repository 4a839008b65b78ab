/* The dialog. One photo, large: look at other moments, take one of them, blur parts of it. Or a question. */

import { clock, label, percent, reading, side } from "./components.js";
import { ask, find, h } from "./dom.js";
import { regions } from "./regions.js";
import { change, complain, download, isStated, photoAddress, photosOf, strength, verdict } from "./results.js";

const RETRY_MS = 2000;
const dialog = find("viewer");
let pending = 0; // changes that are being saved

dialog.addEventListener("click", (event) => {
  const box = dialog.getBoundingClientRect();
  const inside = box.left <= event.clientX && event.clientX <= box.right && box.top <= event.clientY && event.clientY <= box.bottom;
  // Beside it; regions that are being drawn are not lost by a near miss.
  if (event.target === dialog && !inside && !dialog.querySelector(".regions")) dialog.close();
});

/** Opens a chosen photo, or the moments nearest to a view that is missing. */
export function openPhoto(state, name) {
  const { choice } = photosOf(state.selection)[name];
  const others = state.details.alternatives[name] ?? [];
  show(state, name, choice ? { frame: choice.frame, chosen: true, item: choice } : { frame: others[0].frame, item: others[0] });
}

/** Opens a frame of the timeline: `name` is an attribute, `direction` or `kappa`. */
export function openFrame(state, name, row) {
  const { series } = state.details;
  const isDirection = !(name in series.attributes);
  const views = Object.keys(state.selection.orientation?.views ?? {});
  const view = isDirection ? series.views[series.view[row]] : null;
  // With four views the nearest one that there is; the server decides.
  const photo = isDirection ? `view_${views.includes(view) ? view : nearestView(views, series.azimuth_deg[row])}` : name;
  const frame = series.frame[row];
  const { choice } = photosOf(state.selection)[photo];
  if (choice?.frame === frame) return openPhoto(state, photo);
  show(state, photo, { frame, item: itemOf(state, photo, frame) });
}

function nearestView(views, azimuth) {
  const away = (i) => Math.abs(((azimuth - (360 / views.length) * i + 540) % 360) - 180);
  return views.reduce((best, view, i) => (away(i) < away(views.indexOf(best)) ? view : best));
}

function itemOf(state, photo, frame) {
  const known = state.details.alternatives[photo]?.find((other) => other.frame === frame);
  const row = state.details.series.frame.indexOf(frame);
  return known ?? { frame, time_s: state.details.series.time_s[row] };
}

/** `shown`: {frame, item, chosen}: what stands in the large picture. */
function show(state, name, shown) {
  const { title, choice, view } = photosOf(state.selection)[name];
  const others = state.details.alternatives[name] ?? [];
  const heading = view ? `The car’s ${side(view)}` : title;
  const { problem, tell } = problemBox();
  const picture = h("div.large");
  const actions = h("div.choose");
  // By the time of an answer the dialog may be closed, or show another photo.
  const here = () => dialog.open && problem.isConnected;
  let sent = false;
  const act = async (path, body, said) => {
    if (sent) return;
    sent = true;
    problem.hidden = true;
    pending += 1;
    dialog.setAttribute("aria-busy", "true");
    try {
      await change(state, path, body, said, `[data-photo="${name}"]`);
      if (!here()) return;
      dialog.close();
      state.root.querySelector(`[data-photo="${name}"]`)?.focus();
    } catch (error) {
      if (here() && error.status === 409) dialog.close(); // it shows what is no more
      if (here()) tell(error.message);
      else if (!find("results").hidden) complain(error.message);
    } finally {
      sent = false;
      pending -= 1;
      if (!pending) dialog.removeAttribute("aria-busy");
    }
  };

  if (shown.chosen) {
    actions.append(
      download(state, "a.button.primary", { href: photoAddress(state, name, "full"), download: `${name.replace("view_", "")}.jpg` }, "Download this photo", tell),
      h("button.button", { type: "button", onclick: () => blur(state, shown.frame, picture, actions, act, tell) }, state.details.boxes[shown.frame] ? "Change what is blurred" : "Blur something"),
    );
  } else if (view || choice) {
    const what = view ? `the ${side(view)}` : label(name).toLowerCase();
    actions.append(
      h("button.button.primary", { type: "button", id: "use", onclick: () => act(`photos/${name}`, { frame: shown.frame }, `Another photo for ${what} is chosen`) }, `Use for ${what}`),
    );
    if (choice) actions.append(h("button.button", { type: "button", onclick: () => openPhoto(state, name) }, "Back to the chosen photo"));
  }

  picture.append(...largeImage(state, name, shown, tell));
  dialog.replaceChildren(
    head(heading),
    picture,
    h("p.reading", {}, words(state, name, shown)),
    problem,
    actions,
    strip(state, name, choice, others, shown, tell),
  );
  if (!dialog.open) dialog.showModal();
  else dialog.querySelector(".thumb[aria-pressed=true]")?.focus(); // what had the focus is gone
}

/** Asks whether to do what cannot be undone, and does it; tells where that fails. */
export function askWhether(question, text, yes, act) {
  const { problem, tell } = problemBox();
  const sure = h("button.button.primary", { type: "button", id: "sure" }, yes);
  sure.addEventListener("click", async () => {
    sure.disabled = true;
    await act().catch((error) => {
      sure.disabled = false;
      tell(error.message);
    });
  });
  const no = h("button.button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Cancel");
  dialog.replaceChildren(head(question), h("p", {}, text), problem, h("div.choose", {}, sure, no));
  dialog.showModal();
}

/** The first line of the dialog. */
function head(title) {
  const close = h("button.button.close", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, "×");
  return h("div.viewer-head", {}, h("h2", { id: "viewer-title" }, title), close);
}

/** {problem: an element for what goes wrong, tell(text): says it there; nothing is wrong any more where it is empty}. */
function problemBox() {
  const problem = h("p.problem", { role: "alert", hidden: true });
  const tell = (text) => {
    problem.textContent = text;
    problem.hidden = !text;
  };
  return { problem, tell };
}

function largeImage(state, name, shown, tell) {
  const src = shown.chosen ? photoAddress(state, name, "small") : frameAddress(state, shown.frame);
  return awaited(photo(state, src, { alt: `The car at ${clock(shown.item.time_s)}` }, tell));
}

/** A picture of the video's shape; one that the server has not decoded yet is asked for again. */
function photo(state, src, attributes, tell) {
  const { width, height } = state.selection.video;
  const wanted = () => dialog.open && image.isConnected;
  let told = false;
  let again = true;
  const say = (text) => {
    told = Boolean(text);
    tell(text);
  };
  const onerror = async () => {
    const error = await ask(src).then(() => null, (error) => error);
    if (!wanted()) return;
    if (error?.status === 503) {
      say(`${error.message} Trying again.`);
      setTimeout(() => wanted() && (image.src = src), RETRY_MS);
    } else if (error === null && again) {
      again = false;
      image.src = src; // it has come meanwhile
    } else say(error?.message ?? "The picture did not arrive: open it again.");
  };
  const onload = () => told && say("");
  const image = h("img", { width, height, ...attributes, src, onload, onerror });
  return image;
}

/** The picture, with words in its place until it is there. */
function awaited(image) {
  const words = h("p.aside.awaited", {}, "The picture is coming …");
  for (const kind of ["load", "error"]) image.addEventListener(kind, () => words.remove(), { once: true });
  return [image, words];
}

function frameAddress(state, frame) {
  return `/jobs/${state.job.id}/frames/${frame}.jpg`;
}

function words(state, name, shown) {
  const { choice, view } = photosOf(state.selection)[name];
  const at = `${clock(shown.item.time_s)}, frame ${shown.frame}`;
  if (shown.chosen && !view) {
    const strong = strength(name, choice);
    const said = `${verdict(name, choice)}: ${[strong.words, strong.sure].filter(Boolean).join(", ")}.`;
    if (choice.value === null) return `${said} At ${at}.`;
    return `${said} The video as a whole gives it ${percent(choice.video_probability)}. At ${at}.`;
  }
  if (shown.chosen) return `${percent(choice.probability)} sure that it shows this side; the direction is ${Math.round(choice.azimuth_deg) % 360}°. At ${at}.`;
  const row = state.details.series.frame.indexOf(shown.frame);
  return `This frame: ${reading(state.details.series, view ? "direction" : name, row)}. At ${at}.`;
}

function strip(state, name, choice, others, shown, tell) {
  if (!others.length) return h("p.aside", {}, "No other moment of the video shows this as well.");
  const entries = choice ? [choice, ...others] : others;
  return h(
    "div.others",
    {},
    h("h3", {}, choice ? "Next best moments" : "Nearest moments"),
    h(
      "ul",
      {},
      ...entries.map((item) => {
        const chosen = item === choice;
        const share = percent(choice && isStated(choice) ? item.probability : (item.certainty ?? item.probability));
        // Where the photo is said to be of the nearest known class, its number is a probability.
        const sure = choice?.value === null ? `${share} certain` : share;
        const now = item.frame === shown.frame;
        const which = chosen ? "The chosen photo, " : item.first ? "carjax’s choice, " : "";
        return h(
          "li",
          {},
          h(
            "button.thumb",
            { type: "button", "aria-pressed": String(now), "aria-label": `${which}${clock(item.time_s)}, ${sure}`, onclick: () => show(state, name, { frame: item.frame, item, chosen }) },
            photo(state, frameAddress(state, item.frame), { alt: "", loading: "lazy" }, tell),
            h("span", {}, `${clock(item.time_s)} · ${sure}`, chosen ? " ✓" : item.first ? " · carjax’s choice" : ""),
          ),
        );
      }),
    ),
  );
}

/** Turns the large picture into one on which regions are drawn. */
function blur(state, frame, picture, actions, act, tell) {
  const boxes = (state.details.boxes[frame] ?? []).map((box) => [...box]);
  const save = h("button.button.primary", { type: "button", id: "save-blur", disabled: true }, "Save");
  const help = "blur-help";
  const alt = "The whole frame; regions on it will be blurred";
  const image = photo(state, frameAddress(state, frame), { alt, draggable: "false" }, tell);
  image.addEventListener("load", () => (save.disabled = false));
  const editor = regions(awaited(image), boxes, { help, onfull: tell });
  const { width, height } = state.selection.video;
  editor.element.style.setProperty("--shape", width / height);
  const add = h("button.button", { type: "button", "aria-describedby": help, onclick: editor.add }, "Add a region");
  save.addEventListener("click", () => act(`frames/${frame}/blur`, { boxes: editor.boxes() }, "The blurred photo is in every export"));
  picture.replaceChildren(editor.element);
  actions.replaceChildren(
    save,
    add,
    h("button.button", { type: "button", onclick: editor.remove }, "Remove a region"),
    h("button.button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
    h("p.aside", { id: help }, "Click or drag on the picture to blur a number plate or a face; drag a region to move it. By keyboard: the arrow keys move a region, with Shift they resize it, Delete removes it."),
  );
  (editor.element.querySelector("button") ?? add).focus(); // what had the focus is gone
}
