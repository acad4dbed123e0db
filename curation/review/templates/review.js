"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const settings = read("settings"), clips = read("clips");
const at = (id) => document.getElementById(id);
const saved = "vidcurate-review-" + settings.batch;
const marks = load();
const decided = [];
let current = 0, video = null;

function load() {
  try { return JSON.parse(localStorage.getItem(saved)) || {}; } catch { return {}; }
}

function save() {
  try {
    localStorage.setItem(saved, JSON.stringify(marks));
    localStorage.setItem("vidcurate-review-by", at("by").value);
    at("trouble").textContent = "";
  } catch {
    at("trouble").textContent = "This browser does not keep what you mark; download the decisions before you close the page.";
  }
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function mark(changes) {
  const clip = clips[current], old = marks[clip.id] || {};
  marks[clip.id] = { ...old, ...changes, at: new Date().toISOString() };
  save();
  show();
}

function decide(decision) {
  mark({ decision });
  decided.push(current);
  const next = [...clips.keys()].map((k) => (current + 1 + k) % clips.length).find((k) => !(marks[clips[k].id] || {}).decision);
  if (next !== undefined) go(next);
}

// Takes back the decision on this clip, or, where there is none, the one before.
function undo() {
  const number = (marks[clips[current].id] || {}).decision ? current : decided.pop();
  if (number === undefined) return;
  if (marks[clips[number].id]) delete marks[clips[number].id].decision;
  save();
  go(number);
}

function go(number) {
  current = (number + clips.length) % clips.length;
  const clip = clips[current];
  at("title").textContent = `${current + 1} of ${clips.length}: ${clip.film}`;
  at("about").textContent = `from ${clip.from.toFixed(2)} s, ${clip.seconds.toFixed(2)} s long${clip.kind ? ", " + clip.kind : ""}, ${clip.id}`;
  for (const old of [...at("screen").children]) if (old.id !== "verdict") old.remove();
  video = null;
  if (clip.video) {
    video = element("video", { src: clip.video, loop: true, muted: true, autoplay: true, playsInline: true });
    video.addEventListener("timeupdate", follow);
    at("screen").prepend(video);
  } else if (clip.frames) {
    at("screen").prepend(element("img", { src: clip.frames, alt: "frames of the clip" }));
  }
  at("caption").value = (marks[clip.id] || {}).caption ?? clip.caption;
  show();
  document.querySelectorAll(".item")[current].scrollIntoView({ block: "nearest" });
}

function part() {
  const clip = clips[current], mine = marks[clip.id] || {};
  return [mine.start ?? 0, mine.end ?? clip.seconds];
}

function follow() {
  const [start, end] = part(), seconds = clips[current].seconds;
  if (video && !video.paused && (video.currentTime >= end || video.currentTime < start - 0.3)) video.currentTime = start;
  at("now").style.left = `${video ? (100 * video.currentTime) / seconds : 0}%`;
}

function show() {
  const clip = clips[current], mine = marks[clip.id] || {}, [start, end] = part();
  at("verdict").className = at("verdict").textContent = mine.decision || "";
  at("start").value = mine.start ?? "";
  at("end").value = mine.end ?? "";
  at("part").style.left = `${(100 * start) / clip.seconds}%`;
  at("part").style.width = `${(100 * Math.max(0, end - start)) / clip.seconds}%`;
  at("corrected").textContent = mine.caption !== undefined && mine.caption !== clip.caption ? "corrected" : "";
  const decisions = clips.map((c) => (marks[c.id] || {}).decision || "");
  document.querySelectorAll(".item").forEach((item, k) => {
    item.className = "item " + decisions[k];
    item.setAttribute("aria-current", k === current);
  });
  const kept = decisions.filter((d) => d === "keep").length, rejected = decisions.filter((d) => d === "reject").length;
  at("kept-bar").style.width = `${(100 * kept) / clips.length}%`;
  at("rejected-bar").style.width = `${(100 * rejected) / clips.length}%`;
  at("counts").textContent = `${kept} kept, ${rejected} rejected, ${clips.length - kept - rejected} left`;
  at("trouble").textContent = end > start ? "" : "The part ends before it begins.";
}

function trim(side, value) {
  const seconds = clips[current].seconds;
  const number = value === "" || !isFinite(value) ? undefined : Math.round(100 * Math.min(Math.max(Number(value), 0), seconds)) / 100;
  mark({ [side]: (side === "start" && !number) || (side === "end" && number >= seconds) ? undefined : number });
}

function here(side) {
  if (video) trim(side, video.currentTime);
}

// A spreadsheet takes text that begins so for a formula.
const guarded = (text) => (/^[=+\-@\t\r]/.test(text) ? "'" + text : text);
const quoted = (value) => (/[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value);

function table() {
  const lines = clips.filter((clip) => (marks[clip.id] || {}).decision).map((clip) => {
    const mine = marks[clip.id];
    const fields = {
      clip_id: clip.id, decision: mine.decision, start_s: mine.start ?? "", end_s: mine.end ?? "",
      caption: guarded(mine.caption ?? clip.caption), by: guarded(at("by").value.trim()), at: mine.at,
    };
    return settings.columns.map((name) => quoted(String(fields[name]))).join(",");
  });
  return [settings.columns.join(","), ...lines, ""].join("\r\n");
}

function download() {
  const link = element("a", { href: URL.createObjectURL(new Blob([table()], { type: "text/csv" })), download: "decisions.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function step(frames) {
  if (!video) return;
  video.pause();
  video.currentTime = Math.max(0, video.currentTime + frames / 24);
  follow();
}

const keys = {
  k: () => decide("keep"), r: () => decide("reject"), u: undo, i: () => here("start"), o: () => here("end"),
  c: () => mark({ start: undefined, end: undefined }), d: download, e: () => at("caption").focus(),
  ArrowLeft: () => go(current - 1), ArrowRight: () => go(current + 1), ",": () => step(-1), ".": () => step(1),
  " ": () => video && (video.paused ? video.play() : video.pause()),
};

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
});

const clicks = {
  keep: keys.k, reject: keys.r, undo, whole: keys.c, download, "mark-start": keys.i, "mark-end": keys.o,
};
for (const [id, action] of Object.entries(clicks)) at(id).addEventListener("click", (event) => { action(); event.currentTarget.blur(); });
at("start").addEventListener("change", (event) => trim("start", event.target.value));
at("end").addEventListener("change", (event) => trim("end", event.target.value));
at("caption").addEventListener("input", (event) => {
  const clip = clips[current], text = event.target.value;
  marks[clip.id] = { ...(marks[clip.id] || {}), caption: text === clip.caption ? undefined : text, at: new Date().toISOString() };
  save();
  at("corrected").textContent = text === clip.caption ? "" : "corrected";
});
at("by").addEventListener("input", save);
try { at("by").value = localStorage.getItem("vidcurate-review-by") || ""; } catch { /* then it is typed again */ }

let kind = null;
clips.forEach((clip, k) => {
  if (clip.kind !== kind) at("list").append(element("h2", { textContent: (kind = clip.kind) }));
  const item = element("button", { type: "button", className: "item", title: clip.film });
  item.append(element("img", { src: clip.thumb || "data:,", alt: "" }), element("span", { textContent: clip.film }));
  item.addEventListener("click", () => { go(k); item.blur(); });
  at("list").append(item);
});
go(Math.max(0, clips.findIndex((clip) => !(marks[clip.id] || {}).decision)));
