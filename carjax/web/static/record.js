/* Records a walk-around with the device's camera, where the browser allows it. */

import { find } from "./dom.js";

// In order of preference; the server reads all of them.
const FORMATS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

/** Whether this browser lets this page use the camera: only on https and on this computer. */
export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
}

/** Resolves with the recording as a File, or null if the user went back; throws without a camera. */
export async function record(maxSeconds) {
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
    audio: false,
  });
  const camera = find("camera");
  camera.srcObject = stream;
  const type = FORMATS.find((format) => MediaRecorder.isTypeSupported(format));
  const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 8e6 });
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => event.data.size && parts.push(event.data));
  const [shutter, leave, clock] = [find("shutter"), find("leave"), find("clock")];
  shutter.textContent = "Start";
  clock.textContent = "0:00";
  let ticking = 0;
  try {
    return await new Promise((resolve) => {
      const stopped = new Promise((done) => recorder.addEventListener("stop", done));
      const finish = async () => {
        recorder.stop();
        await stopped;
        const ending = type?.includes("mp4") ? "mp4" : "webm";
        resolve(new File(parts, `walk-around.${ending}`, { type: type?.split(";")[0] }));
      };
      shutter.onclick = () => {
        if (recorder.state === "recording") return finish();
        recorder.start(1000);
        const began = performance.now();
        shutter.textContent = "Stop and use it";
        ticking = setInterval(() => {
          const seconds = Math.floor((performance.now() - began) / 1000);
          clock.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
          if (seconds >= maxSeconds - 1) shutter.onclick();
        }, 250);
      };
      leave.onclick = () => resolve(null);
    });
  } finally {
    clearInterval(ticking);
    if (recorder.state !== "inactive") recorder.stop();
    for (const track of stream.getTracks()) track.stop();
    camera.srcObject = null;
  }
}
