/* The page: choose or record a video, watch the job, see its photos. */

import { label, percent } from "./components.js";
import { ask, find, h, problem, sentence } from "./dom.js";
import { canRecord, record } from "./record.js";
import { fetchResults, showResults } from "./results.js";

const RETRY_MS = 2000;
const SECTIONS = ["start", "recorder", "working", "results"];
let about = null;
let file = null;
let recording = null; // a file that is nowhere else until the server has it
let running = null; // an upload or a job: {cancel: ends it, leave: only looks away, sending: an upload}
let turn = 0; // counts what was asked for: what an earlier turn waited for changes nothing
const TITLE = document.title;

/** Turns away from whatever the page was doing; returns the new turn. */
function turnTo() {
  running?.leave();
  running = null;
  turn += 1;
  return turn;
}

/** Shows one section, and moves the focus to its heading. */
function show(name, focus = true) {
  for (const section of SECTIONS) find(section).hidden = section !== name;
  if (name !== "results") {
    find("viewer").close();
    document.title = TITLE;
  }
  find("saved").textContent = "";
  if (focus) find(name).querySelector("[tabindex='-1']")?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function complain(text) {
  const box = find("problem");
  box.textContent = text ? sentence(text) : "";
  box.hidden = !text;
}

// ---------------------------------------------------------------------------- what is asked for

function offer() {
  const attributes = find("attributes");
  const known = find("known-fields");
  for (const { name, classes } of about.attributes) {
    if (!classes.length) continue; // the direction: its views have a choice of their own
    attributes.append(chip(name, label(name)));
    known.append(
      h(
        "label",
        {},
        h("span", {}, label(name)),
        ...field(name, [...classes].sort(inOrder)),
      ),
    );
  }
  find("views").hidden = about.attributes.every((a) => a.classes.length);
  find("limits").textContent = `Up to ${span(about.seconds)} and ${about.megabytes} MB.`;
  find("keep").textContent = span(60 * about.keep_minutes);
}

/** A choice of a few values; of many, a text field that proposes them and takes others too. */
function field(name, values) {
  if (values.length > 20) {
    const list = `list-${name}`;
    const proposals = h("datalist", { id: list }, ...values.map((value) => h("option", { value })));
    return [h("input", { name: `known-${name}`, list, maxlength: 60, autocomplete: "off" }), proposals];
  }
  const options = values.map((value) => h("option", { value }, value));
  return [h("select", { name: `known-${name}` }, h("option", { value: "" }, "not stated"), ...options)];
}

function chip(name, text) {
  return h(
    "label.chip",
    {},
    h("input", { type: "checkbox", name: "attribute", value: name, checked: true }),
    h("span", {}, text),
  );
}

/** Numbers by size, '>5' after 5, words by letter. */
function inOrder(a, b) {
  const [x, y] = [a, b].map((text) => parseFloat(text.replace(/^>(.*)/, "$1.5")));
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
}

/** The number of views that are wanted; 0 is none. */
function views() {
  return find("views").hidden ? 0 : Number(document.querySelector("input[name=views]:checked").value);
}

/** The names of what photos shall show. */
function asked() {
  const names = [...document.querySelectorAll("#attributes input:checked")].map((input) => input.value);
  const direction = about.attributes.find((a) => !a.classes.length);
  return views() ? [...names, direction.name] : names;
}

function choose(chosen) {
  complain("");
  if (about && chosen && chosen.size > 1e6 * about.megabytes) {
    complain(`this file has ${megabytes(chosen)}, more than ${about.megabytes} MB: film a shorter video or at a lower resolution`);
    chosen = null;
  } else if (chosen && !chosen.size) {
    complain("this file is empty: choose another");
    chosen = null;
  }
  file = chosen;
  find("drop").hidden = Boolean(file);
  find("chosen").hidden = !file;
  const preview = find("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.removeAttribute("src");
  find("file").value = "";
  if (!file) return;
  preview.src = URL.createObjectURL(file);
  find("file-name").textContent = file.name;
  find("file-size").textContent = megabytes(file);
  const save = find("save-recording");
  save.hidden = file !== recording;
  save.href = preview.src;
  save.download = file.name;
  find("go").focus();
}

function megabytes(blob) {
  const size = blob.size / 1e6;
  if (size < 0.1) return `${Math.ceil(blob.size / 1000)} kB`;
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} MB`;
}

async function useCamera() {
  complain("");
  if (!canRecord()) {
    // Without https a phone's browser gives no camera to the page, but still opens its own.
    find("file").setAttribute("capture", "environment");
    find("file").click();
    find("file").removeAttribute("capture");
    return;
  }
  const mine = turnTo();
  const goBack = () => find("leave").click();
  running = { cancel: goBack, leave: goBack };
  show("recorder");
  try {
    const recorded = await record(about.seconds, 1e6 * about.megabytes);
    if (mine !== turn) return;
    running = null;
    show("start", false);
    recording = recorded;
    if (recorded) choose(recorded);
    else find("record").focus();
  } catch (error) {
    if (mine !== turn) return;
    running = null;
    show("start", false);
    const reasons = {
      NotAllowedError: "the browser does not let this page use the camera: allow it, or choose a video",
      NotFoundError: "no camera was found: choose a video instead",
    };
    complain(reasons[error.name] ?? "the camera cannot be used now, perhaps by another program’s doing: choose a video instead");
  }
}

// ---------------------------------------------------------------------------- the job

async function send() {
  const wanted = asked();
  if (!wanted.length) return complain("choose at least one thing that photos should show");
  complain("");
  const form = new FormData();
  form.append("attributes", wanted.join(","));
  if (views()) form.append("views", String(views()));
  const known = [...document.querySelectorAll("#known-fields [name]")]
    .filter(({ name, value }) => value.trim() && wanted.includes(name.replace("known-", "")))
    .map(({ name, value }) => `${name.replace("known-", "")}:${value.trim().replaceAll(",", " ")}`);
  if (known.length) form.append("known", known.join(","));
  form.append("video", file, file.name);
  const mine = turnTo();
  work(file.name);
  try {
    const job = await upload(form);
    recording = null;
    if (mine !== turn) return;
    history.pushState({ pushed: true }, "", `#${job.id}`);
    follow(job);
  } catch (error) {
    if (mine === turn) fail(error.name === "AbortError" ? "" : error.message);
  }
}

function upload(form) {
  const request = new XMLHttpRequest(); // fetch does not tell how far an upload is
  const began = performance.now();
  running = { cancel: () => request.abort(), leave: () => request.abort(), sending: true };
  return new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (!event.lengthComputable) return;
      const share = event.loaded / event.total;
      const left = ((performance.now() - began) / 1000) * (1 / share - 1);
      step("upload", share < 1 ? `Sent ${percent(share)}` : "Checking the video", share, left);
    };
    request.onload = () => {
      const said = safeJson(request.responseText);
      if (request.status === 202) resolve(said);
      else reject(new Error(problem(said) ?? `the server answered ${request.status}`));
    };
    request.onerror = async () => reject(new Error(await whyCutOff()));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    request.open("POST", "/jobs");
    request.send(form);
  });
}

/** Why an upload ended without an answer. */
async function whyCutOff() {
  const readable = await file.slice(0, 1).arrayBuffer().catch(() => null);
  if (readable === null) return "the file cannot be read any more: choose it again";
  const now = await ask("/about").catch(() => null);
  if (now === null) return "the server does not answer: is it still running?";
  return now.busy ? "the server is busy: try again in a moment" : "the upload was cut off: try again";
}

function safeJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function work(name) {
  find("working-name").textContent = name;
  step("upload", "Sending the video", 0, null);
  show("working");
}

/** Watches a job until it is done. */
function follow(job) {
  work(job.name);
  watch(job);
}

function watch(job) {
  const mine = turnTo();
  const address = `/jobs/${job.id}`;
  const events = new EventSource(`${address}/events`);
  running = {
    leave: () => events.close(),
    cancel: async () => {
      events.close();
      await ask(address, "DELETE").catch(() => null);
      if (mine === turn) stepBack();
    },
  };
  events.onmessage = (event) => {
    const now = JSON.parse(event.data);
    report(now);
    if (now.state !== "done" && now.state !== "failed") return;
    events.close();
    if (now.state === "failed") failed(now);
    else open(now);
  };
  events.onerror = async () => {
    const error = await ask(address).then(() => null, (error) => error);
    if (mine !== turn) return;
    if (error?.status === 404) return fail("the job is gone: upload the video again");
    if (error) find("doing").textContent = "The server does not answer; trying again …";
    // After a refusal the browser does not try again by itself.
    if (events.readyState === EventSource.CLOSED) setTimeout(() => mine === turn && watch(job), RETRY_MS);
  };
}

function report(job) {
  if (job.state === "queued") {
    const ahead = job.position === 1 ? "one video is before yours" : `${job.position} videos are before yours`;
    step("decoding", job.position ? `Waiting: ${ahead}` : "Waiting for the model to load", 0, job.remaining_s);
  } else if (job.state === "running") {
    const share = Math.min(job.frames / Math.max(job.expected_frames, 1), 1);
    if (job.stage === "writing") step("writing", "Writing the photos", 1, job.remaining_s);
    else if (job.frames >= job.expected_frames) step("choosing", "Choosing the photos", 1, job.remaining_s);
    else if (job.frames) step("scoring", `Scored ${job.frames} of ${job.expected_frames} frames`, share, job.remaining_s);
    else step("decoding", "Decoding the video", 0, job.remaining_s);
  }
}

function step(name, text, share, left) {
  let state = "done";
  for (const item of find("steps").children) {
    if (item.dataset.step === name) state = "now";
    item.className = state;
    if (state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    if (state === "now") state = "next";
  }
  const bar = find("bar");
  // The upload is the first tenth of the bar, scoring nearly all of the rest.
  const ends = { upload: [0, 0.1], decoding: [0.1, 0.1], scoring: [0.1, 0.92], choosing: [0.92, 0.95], writing: [0.95, 0.98] };
  const [low, high] = ends[name];
  bar.value = low + (high - low) * share;
  if (find("steps").dataset.at !== name) find("said").textContent = text; // each stage is said once
  find("steps").dataset.at = name;
  find("doing").textContent = text;
  find("left").textContent = left === null || left === undefined ? "" : `about ${duration(left)} left`;
}

/** A limit in words, as exact as it is. */
function span(seconds) {
  if (seconds % 60 || seconds < 120) return `${Number(seconds.toFixed(1))} s`;
  return seconds % 3600 || seconds < 7200 ? `${seconds / 60} minutes` : `${seconds / 3600} hours`;
}

/** About how long, in words. */
function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  return `${Math.round(seconds / 3600)} hours`;
}

/** Ends what the page was doing; the address names no job any more. */
function fail(text) {
  history.replaceState(null, "", "/");
  end(text);
}

/** Tells why a job failed; its address stays, and tells it again. */
function failed(job) {
  end(job.no_car ? "No car found in this video: film the whole car from a few steps away, in good light" : job.error);
}

/** Leaves a job that was cancelled, and its place in the history. */
function stepBack() {
  if (!history.state?.pushed) return fail("");
  end("");
  history.back();
}

function end(text) {
  turnTo();
  show("start", !text);
  complain(text);
  if (text) find("problem").focus();
}

/** Looks again for the job that the address names, unless it is gone or refused. */
function retry(error) {
  const passing = [408, 429].includes(error.status); // as a proxy may answer
  if (error.status >= 400 && error.status < 500 && !passing) return fail(error.message);
  const mine = turnTo();
  if (find("start").hidden) show("start", false);
  complain(`${error.message} Trying again.`);
  setTimeout(() => mine === turn && resume(), RETRY_MS);
}

async function open(job) {
  const mine = turnTo();
  try {
    const results = await fetchResults(job);
    if (mine !== turn) return;
    find("viewer").close(); // it shows a photo of what was here before
    showResults(find("results"), results);
    document.title = `${job.name} – carjax`;
    show("results");
  } catch (error) {
    if (mine === turn) retry(error);
  }
}

// ---------------------------------------------------------------------------- beginning

async function begin() {
  const drop = find("drop");
  find("file").addEventListener("change", (event) => choose(event.target.files[0] ?? null));
  find("record").addEventListener("click", useCamera);
  find("other").addEventListener("click", () => {
    choose(null);
    find("file").focus();
  });
  find("cancel").addEventListener("click", () => running?.cancel());
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the job
    find("main").focus();
  });
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (file && about) send();
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    window.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && !find("start").hidden && event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
    });
  }
  window.addEventListener("beforeunload", (event) => {
    if (running?.sending || (file && file === recording)) event.preventDefault(); // the browser asks
  });
  window.addEventListener("popstate", () => {
    complain(""); // that was of another address
    resume();
  });
  about = await whatThereIs();
  offer();
  find("go").disabled = find("record").disabled = false;
  if (file) choose(file); // now that its limit is known
  document.body.dataset.ready = "true";
  await resume();
}

/** What the server offers, once its model is loaded; asks until it says so. */
async function whatThereIs() {
  let silent = false;
  for (;;) {
    let wait = 500;
    try {
      const now = await ask("/about");
      if (silent) complain("");
      silent = false;
      if (now.attributes.length) return now;
    } catch (error) {
      silent = true;
      complain(`${error.message} Trying again.`);
      wait = RETRY_MS;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

/** Shows the job that the address names, if it does. */
async function resume() {
  const mine = turnTo();
  const id = location.hash.slice(1);
  if (!/^[\w-]{16,64}$/.test(id)) return show("start", false);
  try {
    const job = await ask(`/jobs/${id}`);
    if (mine !== turn) return;
    complain("");
    if (job.state === "done") open(job);
    else if (job.state === "failed") failed(job);
    else follow(job);
  } catch (error) {
    if (mine === turn) retry(error);
  }
}

begin();
