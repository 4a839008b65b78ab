/* Elements without ceremony. Text is always set as text: nothing from outside becomes markup. */

/** Makes an element: `h("a.button", {href: "/"}, "Home")`. Handlers are `onclick: …`; null is left out. */
export function h(selector, attributes = {}, ...children) {
  const [tag, ...classes] = selector.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const find = (id) => document.getElementById(id);

/** The server's answer as JSON; throws an Error with its own words, and its `status`, where it refuses. */
export async function ask(path, method = "GET", body = null) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === null ? {} : { "Content-Type": "application/json" },
      body: body === null ? null : JSON.stringify(body),
    });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => null);
  if (!answer.ok) {
    const words = sentence(problem(said) ?? `The server answered ${answer.status}.`);
    throw Object.assign(new Error(words), { status: answer.status });
  }
  if (said === null && answer.headers.get("Content-Type")?.includes("json")) throw new Error("The server’s answer was cut off.");
  return said;
}

/** What a refusal says, if it says something. */
export function problem(said) {
  return typeof said?.detail === "string" ? said.detail : null;
}

/** With a capital and a full stop. */
export function sentence(text) {
  const start = text.slice(0, 1).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}
