/* Regions on a picture, by pointer or by keyboard: [left, top, width, height] as fractions. */

import { h } from "./dom.js";

// A click without a drag: about a number plate, a few steps away.
const PLATE = [0.16, 0.09];
const LEAST = 0.01;
const STEP = 0.01;
const APART = 0.03;
const MOST = 20; // the server takes no more

/** Returns {element, boxes(), add(), remove()}: `picture` with regions, starting from `initial`; `help` names the element that says how. */
export function regions(picture, initial, { help, onfull }) {
  let boxes = initial;
  let selected = -1; // the region that had the focus last
  let drag = null; // {from: where the pointer went down, box: the region that it moves, or null}
  const layer = h("div.layer");
  const element = h("div.regions", {}, picture, layer);

  function place(button, [left, top, width, height]) {
    Object.assign(button.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
  }

  function full() {
    if (boxes.length < MOST) return false;
    onfull(`A frame takes ${MOST} regions: make one of them larger, or remove one.`);
    return true;
  }

  function draw(focus = -1) {
    layer.replaceChildren(
      ...boxes.map((box, i) => {
        const button = h("button.region", { type: "button", "aria-label": `Blurred region ${i + 1}`, "aria-describedby": help, onkeydown: (event) => keys(event, i), onfocus: () => select(i) });
        place(button, box);
        return button;
      }),
    );
    select(focus);
    layer.children[focus]?.focus();
  }

  function select(i) {
    selected = i;
    [...layer.children].forEach((button, k) => button.classList.toggle("selected", k === i));
  }

  function put(i, box) {
    boxes[i] = box;
    place(layer.children[i], box);
  }

  function remove(i) {
    boxes = boxes.filter((_, k) => k !== i);
    draw(Math.min(i, boxes.length - 1));
  }

  function keys(event, i) {
    const move = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (move) {
      const at = event.shiftKey ? 2 : 0;
      put(i, inside(boxes[i].map((value, k) => value + (k === at ? move[0] : k === at + 1 ? move[1] : 0))));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      remove(i);
    } else return;
    event.preventDefault();
  }

  function point(event) {
    const box = layer.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => Math.min(Math.max(v, 0), 1));
  }

  layer.addEventListener("pointerdown", (event) => {
    if (drag || event.button !== 0) return;
    event.preventDefault();
    layer.setPointerCapture(event.pointerId);
    const from = point(event);
    const hit = [...layer.children].indexOf(event.target);
    if (hit < 0 && full()) return;
    drag = { from, box: hit < 0 ? null : boxes[hit], pointer: event.pointerId };
    if (hit < 0) boxes.push([...from, 0, 0]);
    draw(hit < 0 ? boxes.length - 1 : hit);
  });
  layer.addEventListener("pointermove", (event) => {
    if (drag?.pointer !== event.pointerId) return;
    const [[x, y], [a, b]] = [point(event), drag.from];
    if (drag.box) {
      const [left, top, ...size] = drag.box;
      put(selected, inside([left + x - a, top + y - b, ...size]));
    } else put(selected, [Math.min(x, a), Math.min(y, b), Math.abs(x - a), Math.abs(y - b)]);
  });
  layer.addEventListener("pointerup", (event) => {
    if (drag?.pointer !== event.pointerId) return;
    if (!drag.box) {
      const [, , width, height] = boxes[selected];
      const [x, y] = point(event);
      const clicked = width < LEAST && height < LEAST;
      put(selected, inside(clicked ? [x - PLATE[0] / 2, y - PLATE[1] / 2, ...PLATE] : boxes[selected]));
    }
    drag = null;
  });
  layer.addEventListener("pointercancel", (event) => {
    if (drag?.pointer !== event.pointerId) return;
    if (drag.box) put(selected, drag.box);
    else remove(selected);
    drag = null;
  });
  draw();
  return {
    element,
    boxes: () => boxes,
    add: () => {
      if (full()) return;
      const off = APART * (boxes.length % 10); // so that none hides another
      boxes.push(inside([0.5 - PLATE[0] / 2 + off, 0.6 + off, ...PLATE]));
      draw(boxes.length - 1);
    },
    remove: () => remove(selected < 0 ? boxes.length - 1 : selected),
  };
}

function inside([left, top, width, height]) {
  const w = Math.min(Math.max(width, LEAST), 1);
  const t = Math.min(Math.max(height, LEAST), 1);
  return [Math.min(Math.max(left, 0), 1 - w), Math.min(Math.max(top, 0), 1 - t), w, t];
}
