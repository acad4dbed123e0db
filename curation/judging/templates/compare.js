"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const settings = read("settings"), pairs = read("pairs");
const at = (id) => document.getElementById(id);
const saved = "vidcurate-compare-" + settings.page;
const state = load();
let current = 0;

// Every voter sees the pairs in an order of their own, and the sides swapped anew: neither place nor side is a habit.
function load() {
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(saved)); } catch { /* then it begins anew */ }
  if (kept && Array.isArray(kept.order) && kept.order.length === pairs.length) return kept;
  const order = [...pairs.keys()];
  for (let k = order.length - 1; k > 0; k--) {
    const other = Math.floor(Math.random() * (k + 1));
    [order[k], order[other]] = [order[other], order[k]];
  }
  return { order, swapped: pairs.map(() => Math.random() < 0.5), votes: {} };
}

function save() {
  try {
    localStorage.setItem(saved, JSON.stringify(state));
    localStorage.setItem("vidcurate-compare-by", at("by").value);
    at("trouble").textContent = "";
  } catch {
    at("trouble").textContent = "This browser does not keep your votes; download them before you close the page.";
  }
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const pair = () => pairs[state.order[current]];
const isSwapped = () => state.swapped[state.order[current]];
const mine = () => (state.votes[pair().id] ||= {});

// What a side is called in the table: "first" and "second" as the page holds them, whatever side they were shown on.
function meaning(side) {
  if (side === "equal") return "equal";
  return (side === "left") === isSwapped() ? "second" : "first";
}

function vote(axis, side) {
  mine()[axis] = { vote: meaning(side), at: new Date().toISOString() };
  save();
  show();
  if (settings.axes.every((each) => mine()[each.name]) && current + 1 < pairs.length) setTimeout(() => go(current + 1), 250);
}

function go(number) {
  current = Math.min(Math.max(number, 0), pairs.length - 1);
  const [first, second] = pair().videos;
  at("left").src = isSwapped() ? second : first;
  at("right").src = isSwapped() ? first : second;
  at("prompt").textContent = pair().prompt ? "“" + pair().prompt + "”" : "(no text)";
  at("place").textContent = `pair ${current + 1} of ${pairs.length}`;
  show();
  together();
}

function open() {
  return settings.axes.find((axis) => !mine()[axis.name]);
}

function show() {
  const next = open();
  at("axes").replaceChildren(...settings.axes.map((axis) => {
    const said = (mine()[axis.name] || {}).vote;
    const buttons = ["left", "equal", "right"].map((side) => {
      const button = element("button", { type: "button", textContent: side, ariaPressed: String(said === meaning(side)) });
      button.addEventListener("click", () => vote(axis.name, side));
      return button;
    });
    const row = element("tr", { className: axis === next ? "now" : "" }, element("td", { textContent: axis.question }), element("td", {}));
    row.lastChild.append(buttons[0], " ", buttons[1], " ", buttons[2]);
    return row;
  }));
  const total = pairs.length * settings.axes.length;
  const answered = Object.values(state.votes).reduce((sum, votes) => sum + Object.keys(votes).length, 0);
  document.querySelector("#progress i").style.width = `${(100 * answered) / total}%`;
  at("counts").textContent = `${answered} of ${total} questions`;
}

function together() {
  for (const id of ["left", "right"]) {
    at(id).currentTime = 0;
    at(id).play().catch(() => {});
  }
}

// A spreadsheet takes text that begins so for a formula.
const guarded = (text) => (/^[=+\-@\t\r]/.test(text) ? "'" + text : text);
const quoted = (value) => (/[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value);

function table() {
  const by = guarded(at("by").value.trim());
  const lines = [];
  for (const [id, votes] of Object.entries(state.votes))
    for (const [axis, { vote, at: when }] of Object.entries(votes)) {
      const fields = { page: settings.page, pair: id, axis, vote, by, at: when };
      lines.push(settings.columns.map((name) => quoted(String(fields[name]))).join(","));
    }
  return [settings.columns.join(","), ...lines, ""].join("\r\n");
}

function download() {
  const name = at("by").value.trim();
  if (!name) {
    at("trouble").textContent = "Write your name first: votes without one cannot be counted.";
    at("by").focus();
    return;
  }
  const file = "votes-" + name.replace(/[^\p{L}\p{N}]+/gu, "-") + ".csv";
  const link = element("a", { href: URL.createObjectURL(new Blob([table()], { type: "text/csv" })), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const sides = { 1: "left", 2: "equal", 3: "right" };
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (sides[event.key] && open()) vote(open().name, sides[event.key]);
  else if (event.key === "ArrowLeft") go(current - 1);
  else if (event.key === "ArrowRight") go(current + 1);
  else if (event.key === " ") together();
  else return;
  event.preventDefault();
});
at("back").addEventListener("click", () => go(current - 1));
at("on").addEventListener("click", () => go(current + 1));
at("again").addEventListener("click", together);
at("download").addEventListener("click", download);
at("by").addEventListener("input", save);
try { at("by").value = localStorage.getItem("vidcurate-compare-by") || ""; } catch { /* then it is typed again */ }
go(Math.max(0, state.order.findIndex((number) => settings.axes.some((axis) => !(state.votes[pairs[number].id] || {})[axis.name]))));
