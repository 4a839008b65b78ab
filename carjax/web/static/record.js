/* Records a walk-around with the device's camera, where the browser allows it. */

import { find } from "./dom.js";

// In order of preference; the server reads all of them.
const FORMATS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

// More than a second and a quarter of film: what still comes when the limit is noticed.
const SPARE_BYTES = 3e6;

/** Whether this browser lets this page use the camera: only on https and on this computer. */
export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
}

/** Resolves with the recording as a File, or null if the user went back; throws without a camera. */
export async function record(maxSeconds, maxBytes) {
  const [camera, shutter, leave, clock] = ["camera", "shutter", "leave", "clock"].map(find);
  const ended = new AbortController(); // takes the listeners away
  const clicked = (button) => new Promise((done) => button.addEventListener("click", done, { once: true, signal: ended.signal }));
  shutter.disabled = true;
  shutter.textContent = "Start";
  clock.textContent = "0:00";
  const left = clicked(leave).then(() => null);
  // The user may go back while the browser still asks for the permission.
  const asked = navigator.mediaDevices.getUserMedia({
    video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
    audio: false,
  });
  try {
    const stream = await Promise.race([asked, left]);
    if (stream === null) return null;
    camera.srcObject = stream;
    shutter.disabled = false;
    return await Promise.race([film(stream, maxSeconds, maxBytes, shutter, clock, clicked, ended.signal), left]);
  } finally {
    ended.abort();
    camera.srcObject = null;
    asked.then((stream) => stream.getTracks().forEach((track) => track.stop()), () => null);
  }
}

/** Films from a click on the shutter to the next one, or for as long as is allowed. */
async function film(stream, maxSeconds, maxBytes, shutter, clock, clicked, signal) {
  await clicked(shutter);
  const type = FORMATS.find((format) => MediaRecorder.isTypeSupported(format));
  const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 8e6 });
  const parts = [];
  let bytes = 0;
  recorder.addEventListener("dataavailable", (event) => {
    if (event.data.size) parts.push(event.data);
    bytes += event.data.size;
  });
  const stopped = new Promise((done) => recorder.addEventListener("stop", done));
  recorder.start(1000);
  shutter.textContent = "Stop and use it";
  const began = performance.now();
  let ticking = 0;
  const full = new Promise((done) => {
    ticking = setInterval(() => {
      const seconds = Math.floor((performance.now() - began) / 1000);
      clock.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      if (seconds >= maxSeconds - 1 || bytes > maxBytes - Math.min(SPARE_BYTES, maxBytes / 2)) done();
    }, 250);
  });
  signal.addEventListener("abort", () => clearInterval(ticking));
  await Promise.race([clicked(shutter), full, stopped]); // a camera may end by itself
  shutter.disabled = true;
  clearInterval(ticking);
  if (recorder.state !== "inactive") recorder.stop();
  await stopped;
  const ending = type?.includes("mp4") ? "mp4" : "webm";
  return new File(parts, `walk-around.${ending}`, { type: type?.split(";")[0] });
}
