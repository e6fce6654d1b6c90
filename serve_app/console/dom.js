// Elements: made, and kept in step with data without losing focus, selection or what is open. Text is never read as HTML.

export const byId = (id) => document.getElementById(id);

export function make(tag, { text, kind, on = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, handle] of Object.entries(on)) made.addEventListener(name, handle);
  made.append(...children);
  return made;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setHidden(element, isHidden) {
  if (element.hidden !== isHidden) element.hidden = isHidden;
}

const kept = new WeakMap();

// Makes the parent's children be those of the items, in their order; an element stays as long as its key is among them.
export function sync(parent, items, { key, create, update }) {
  const old = kept.get(parent) ?? new Map();
  const now = new Map();
  items.forEach((item, index) => {
    const name = key(item);
    const element = old.get(name) ?? create(item);
    now.set(name, element);
    old.delete(name);
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
    update(element, item);
  });
  for (const gone of old.values()) gone.remove();
  kept.set(parent, now);
}

let heard = 0;

// Has a screen reader say something, also the same thing twice.
export function say(text) {
  heard += 1;
  byId("said").textContent = heard % 2 ? text : `${text}\u00a0`;
}
