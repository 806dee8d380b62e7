// Builds elements. Text is always set as text, so that nothing a run says becomes markup.

// h("p.quiet", {title: "..."}, "text", child): an element with classes, properties and children.
export function h(what, properties, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "style") {
      for (const [name, said] of Object.entries(value)) element.style.setProperty(name, said);
    } else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role" || key === "for") element.setAttribute(key, value);
    else element[key] = value;
  }
  const given = children.flat().filter((child) => child !== null && child !== undefined);
  element.append(...given.map((child) => (typeof child === "string" ? child.replace(TURNS, escaped) : child)));
  return element;
}

// What would turn round the letters around it is shown by its number.
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

function escaped(letter) {
  return `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

export function clear(element, ...children) {
  element.replaceChildren(...children.flat());
  return element;
}

// A sample of a run's line, so that its name and its curve are seen to belong together.
export function swatch(run) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const facts = { x1: 0, y1: 5, x2: 18, y2: 5, stroke: run.colour, "stroke-width": 3 };
  for (const [key, value] of Object.entries(facts)) line.setAttribute(key, value);
  if (run.dash.length) line.setAttribute("stroke-dasharray", run.dash.join(" "));
  svg.setAttribute("class", "swatch");
  svg.setAttribute("viewBox", "0 0 18 10");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}

// What the theme says a colour is, for what is painted.
export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
