/* Regions on a picture, by pointer or by keyboard: [left, top, width, height] as fractions. */

import { h } from "./dom.js";

// A click without a drag: about a number plate, a few steps away.
const PLATE = [0.16, 0.09];
const LEAST = 0.01;
const STEP = 0.01;

/** Returns {element, boxes(), add()}: a picture with regions, starting from `initial`. */
export function regions(src, initial) {
  let boxes = initial;
  const image = h("img", { src, alt: "The whole frame; regions on it will be blurred", draggable: "false" });
  const layer = h("div.layer");
  const element = h("div.regions", {}, image, layer);
  let drawing = null;

  function place(button, [left, top, width, height]) {
    Object.assign(button.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
  }

  function draw(focus = -1) {
    layer.replaceChildren(
      ...boxes.map((box, i) => {
        const button = h("button.region", { type: "button", "aria-label": `Blurred region ${i + 1}`, onkeydown: (event) => keys(event, i) });
        place(button, box);
        return button;
      }),
    );
    layer.children[focus]?.focus();
  }

  function keys(event, i) {
    const move = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (move) {
      const at = event.shiftKey ? 2 : 0;
      boxes[i] = inside(boxes[i].map((value, k) => value + (k === at ? move[0] : k === at + 1 ? move[1] : 0)));
      place(event.target, boxes[i]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      boxes = boxes.filter((_, k) => k !== i);
      draw(Math.min(i, boxes.length - 1));
    } else return;
    event.preventDefault();
  }

  function point(event) {
    const box = layer.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => Math.min(Math.max(v, 0), 1));
  }

  layer.addEventListener("pointerdown", (event) => {
    if (event.target !== layer) return;
    event.preventDefault();
    layer.setPointerCapture(event.pointerId);
    drawing = point(event);
    boxes.push([...drawing, 0, 0]);
    draw();
  });
  layer.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const [x, y] = point(event);
    const box = [Math.min(x, drawing[0]), Math.min(y, drawing[1]), Math.abs(x - drawing[0]), Math.abs(y - drawing[1])];
    boxes[boxes.length - 1] = box;
    place(layer.lastChild, box);
  });
  layer.addEventListener("pointerup", (event) => {
    if (!drawing) return;
    const [, , width, height] = boxes.at(-1);
    if (width < LEAST && height < LEAST) {
      const [x, y] = point(event);
      boxes[boxes.length - 1] = inside([x - PLATE[0] / 2, y - PLATE[1] / 2, ...PLATE]);
    }
    drawing = null;
    boxes[boxes.length - 1] = inside(boxes.at(-1));
    draw(boxes.length - 1);
  });
  draw();
  return {
    element,
    boxes: () => boxes,
    add: () => {
      boxes.push([0.5 - PLATE[0] / 2, 0.6, ...PLATE]);
      draw(boxes.length - 1);
    },
  };
}

function inside([left, top, width, height]) {
  const w = Math.min(Math.max(width, LEAST), 1);
  const t = Math.min(Math.max(height, LEAST), 1);
  return [Math.min(Math.max(left, 0), 1 - w), Math.min(Math.max(top, 0), 1 - t), w, t];
}
