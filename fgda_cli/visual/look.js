"use strict";
// Frames with label maps as grey PNGs (value = class), entropies as grey WebPs.
// Nothing is loaded from elsewhere.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const S = {
  at: 0,
  layer: "classes",
  opacity: 0.6,
  off: new Set(),
  palette: "own",
  slide: false,
  left: 0,
  right: D.names.length - 1,
  split: 0.5,
  zoom: 1,
  x: 0.5,
  y: 0.5,
};
const hasTruth = D.frames.some((frame) => frame.truth);
const last = (values) => values[values.length - 1];
const SORTS = { order: ["as given", (f) => 0] };
if (D.names.length > 1) SORTS.changed = ["most changed", (f) => -f.changed];
SORTS.unsure = ["least sure", (f) => -last(f.unsure)];
const gain = (f) => (f.miou ? last(f.miou) - f.miou[0] : 0);
if (hasTruth) SORTS.worst = ["worst", (f) => (f.miou ? last(f.miou) : 101)];
if (hasTruth) SORTS.best = ["best", (f) => (f.miou ? -last(f.miou) : 101)];
if (hasTruth && D.names.length > 1) {
  SORTS.lost = ["lost most", gain];
  SORTS.gained = ["gained most", (f) => -gain(f)];
}
D.classes.forEach((name, id) => {
  if (D.frames.some((frame) => frame.shares[id]))
    SORTS[`class ${id}`] = [`most ${name}`, (f) => -f.shares[id]];
});
const LAYERS = [
  "classes",
  "entropy",
  ...(D.names.length > 1 ? ["disagreement"] : []),
  ...(hasTruth ? ["errors"] : []),
  "photograph",
];
let order = D.frames.map((_, n) => n);
let loaded = null;
let drawing = 0;

const current = () => D.frames[order[S.at]];
const option = (value, text) =>
  Object.assign(document.createElement("option"), { value, textContent: text });

function picture(url) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = fail;
    image.src = url;
  });
}

// Return the grey values of an image, at w x h.
async function pixels(url, w, h) {
  const image = await picture(url);
  const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = image.width !== w;
  context.drawImage(image, 0, 0, w, h);
  const rgba = context.getImageData(0, 0, w, h).data;
  const grey = new Uint8Array(w * h);
  for (let n = 0; n < grey.length; n++) grey[n] = rgba[4 * n];
  return grey;
}

async function load() {
  const frame = current();
  const mine = ++drawing;
  const [photo, ids, entropy, truth] = await Promise.all([
    picture(frame.photo),
    Promise.all(frame.ids.map((url) => pixels(url, frame.w, frame.h))),
    Promise.all(frame.entropy.map((url) => pixels(url, frame.w, frame.h))),
    frame.truth ? pixels(frame.truth, frame.w, frame.h) : null,
  ]);
  if (mine !== drawing) return; // another frame was asked for meanwhile
  loaded = { frame, photo, ids, entropy, truth, made: new Map() };
  tell();
  draw();
}

// Return a colour from dark to bright, as in the heat maps.
function ramp(value) {
  const stops = [
    [0, 0, 4],
    [87, 16, 110],
    [188, 55, 84],
    [249, 142, 9],
    [252, 255, 164],
  ];
  const place = (value / 255) * 4;
  const low = Math.min(3, Math.floor(place));
  const share = place - low;
  return stops[low].map((from, n) => Math.round(from + share * (stops[low + 1][n] - from)));
}

// Return a colour as a canvas keeps it, low byte first.
const packed = ([r, g, b], a = 255) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

// Write the layer's colours, 0 where the photograph shows.
function fill(out, view) {
  const ids = view < 0 ? loaded.truth : loaded.ids[view];
  const { truth, entropy } = loaded;
  if (S.layer === "classes") {
    const table = new Uint32Array(256);
    D.palettes[S.palette].forEach((colour, id) => {
      table[id] = S.off.has(id) ? 0 : packed(colour);
    });
    for (let n = 0; n < out.length; n++) out[n] = table[ids[n]];
  } else if (S.layer === "entropy" && view >= 0) {
    const table = Uint32Array.from({ length: 256 }, (_, value) => packed(ramp(value)));
    for (let n = 0; n < out.length; n++) out[n] = table[entropy[view][n]];
  } else if (S.layer === "disagreement") {
    const [first, ...others] = loaded.ids;
    const mark = packed([230, 0, 126]);
    for (let n = 0; n < out.length; n++)
      out[n] = others.some((other) => other[n] !== first[n]) ? mark : 0;
  } else if (S.layer === "errors" && view >= 0 && truth) {
    const wrong = packed([214, 32, 32]);
    const ignored = packed([0, 0, 0]);
    for (let n = 0; n < out.length; n++)
      out[n] = truth[n] === 255 ? ignored : truth[n] !== ids[n] ? wrong : 0;
  }
}

function overlay(view) {
  const key = [view, S.layer, S.palette, [...S.off].join()].join("|");
  if (!loaded.made.has(key)) {
    const { w, h } = loaded.frame;
    const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
    const context = canvas.getContext("2d");
    const image = context.createImageData(w, h);
    if (view >= 0 || loaded.truth) fill(new Uint32Array(image.data.buffer), view);
    context.putImageData(image, 0, 0);
    loaded.made.set(key, canvas);
  }
  return loaded.made.get(key);
}

// Return the part of the picture that is seen: left, top, width, height.
function part() {
  const { w, h } = loaded.frame;
  const width = w / S.zoom;
  const height = h / S.zoom;
  S.x = Math.min(1 - width / w / 2, Math.max(width / w / 2, S.x));
  S.y = Math.min(1 - height / h / 2, Math.max(height / h / 2, S.y));
  return [S.x * w - width / 2, S.y * h - height / 2, width, height];
}

// Paint a view between two shares of the canvas's width.
function paint(context, view, from, to) {
  const { width, height } = context.canvas;
  const [x, y, w, h] = part();
  const photo = loaded.photo;
  const scale = photo.width / loaded.frame.w;
  context.save();
  context.beginPath();
  context.rect(from * width, 0, (to - from) * width, height);
  context.clip();
  context.imageSmoothingEnabled = S.zoom < 3;
  context.drawImage(photo, x * scale, y * scale, w * scale, h * scale, 0, 0, width, height);
  context.globalAlpha = S.opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(overlay(view), x, y, w, h, 0, 0, width, height);
  context.restore();
}

function draw() {
  if (!loaded) return;
  for (const canvas of document.querySelectorAll("canvas")) {
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    canvas.height = Math.max(1, Math.round((canvas.width * loaded.frame.h) / loaded.frame.w));
    const context = canvas.getContext("2d");
    const view = Number(canvas.dataset.view);
    if (!S.slide) {
      paint(context, view, 0, 1);
      continue;
    }
    paint(context, S.left, 0, S.split);
    paint(context, S.right, S.split, 1);
    context.fillStyle = "#fff";
    context.fillRect(S.split * canvas.width - 1, 0, 3, canvas.height);
  }
}

// Make the canvases: one a checkpoint and the truth, or one that is divided.
function build() {
  const views = S.slide
    ? [["slider", 0]]
    : [...D.names.map((name, n) => [name, n]), ...(hasTruth ? [["truth", -1]] : [])];
  $("views").style.setProperty(
    "--columns",
    S.slide ? 1 : views.length % 3 ? Math.min(2, views.length) : 3,
  );
  $("views").replaceChildren(
    ...views.map(([name, view]) => {
      const figure = document.createElement("figure");
      const canvas = document.createElement("canvas");
      const text = document.createElement("figcaption");
      canvas.dataset.view = view;
      text.textContent = S.slide ? `${D.names[S.left]} | ${D.names[S.right]}` : name;
      figure.append(text, canvas);
      listen(canvas);
      return figure;
    }),
  );
  draw();
}

// Show the facts of the frame and the shares of its classes.
function tell() {
  const frame = loaded.frame;
  const shares = (ids) => {
    const counts = new Array(256).fill(0);
    ids.forEach((id) => counts[id]++);
    return counts.map((c) => (100 * c) / ids.length);
  };
  const facts = [`${S.at + 1} of ${D.frames.length}`, frame.name];
  if (D.names.length > 1) facts.push(`${frame.changed.toFixed(1)} % of the pixels changed`);
  facts.push("mean entropy " + frame.unsure.map((value) => value.toFixed(3)).join(", "));
  if (frame.miou)
    facts.push("mIoU " + frame.miou.map((value) => value.toFixed(1)).join(", ") + " %");
  $("facts").textContent = facts.join(" · ");
  const columns = [...loaded.ids.map(shares), ...(loaded.truth ? [shares(loaded.truth)] : [])];
  const names = [...D.names, ...(loaded.truth ? ["truth"] : [])];
  const head = document.createElement("tr");
  head.replaceChildren(
    ...["", "class", ...names.map((name) => `${name}, %`)].map((text) =>
      Object.assign(document.createElement("th"), { textContent: text }),
    ),
  );
  $("shares").replaceChildren(
    head,
    ...D.classes.map((name, id) => {
      const row = document.createElement("tr");
      const box = Object.assign(document.createElement("input"), {
        type: "checkbox",
        checked: !S.off.has(id),
      });
      const swatch = document.createElement("i");
      const cells = [0, 1].map(() => document.createElement("td"));
      box.setAttribute("aria-label", name);
      box.dataset.class = id;
      box.onchange = () => {
        box.checked ? S.off.delete(id) : S.off.add(id);
        draw();
      };
      swatch.className = "swatch";
      swatch.style.background = `rgb(${D.palettes[S.palette][id]})`;
      cells[0].append(box);
      cells[1].append(swatch, name);
      row.append(
        ...cells,
        ...columns.map((share) =>
          Object.assign(document.createElement("td"), { textContent: share[id].toFixed(1) }),
        ),
      );
      return row;
    }),
  );
}

function go(to) {
  S.at = (to + order.length) % order.length;
  $("frame").value = String(S.at);
  return load();
}

function sort() {
  const key = SORTS[$("sort").value][1];
  order = D.frames.map((_, n) => n).sort((a, b) => key(D.frames[a]) - key(D.frames[b]) || a - b);
  $("frame").replaceChildren(...order.map((n, place) => option(String(place), D.frames[n].name)));
  return go(0);
}

function zoom(factor) {
  S.zoom = Math.min(16, Math.max(1, S.zoom * factor));
  draw();
}

function listen(canvas) {
  const down = new Map();
  let apart = 0;
  canvas.onwheel = (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2);
  };
  canvas.onpointerdown = (event) => {
    down.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    down.delete(event.pointerId);
    apart = 0;
  };
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect();
    const before = down.get(event.pointerId);
    if (!before) return point(event, canvas, box);
    down.set(event.pointerId, [event.clientX, event.clientY]);
    if (down.size === 2) {
      // two fingers
      const [a, b] = [...down.values()];
      const now = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (apart) zoom(now / apart);
      apart = now;
    } else if (S.slide && S.zoom === 1) {
      S.split = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      $("split").value = String(100 * S.split);
      draw();
    } else {
      S.x -= (event.clientX - before[0]) / box.width / S.zoom;
      S.y -= (event.clientY - before[1]) / box.height / S.zoom;
      draw();
    }
  };
}

// Name the classes under the pointer.
function point(event, canvas, box) {
  if (!loaded) return;
  const [x, y, w, h] = part();
  const { frame } = loaded;
  const column = Math.min(
    frame.w - 1,
    Math.floor(x + ((event.clientX - box.left) / box.width) * w),
  );
  const row = Math.min(frame.h - 1, Math.floor(y + ((event.clientY - box.top) / box.height) * h));
  const n = row * frame.w + column;
  const name = (id) => D.classes[id] ?? "ignored";
  const parts = D.names.map((label, k) => `${label}: ${name(loaded.ids[k][n])}`);
  if (loaded.truth) parts.push(`truth: ${name(loaded.truth[n])}`);
  canvas.title = parts.join("\n");
  const entropies = loaded.entropy.map((values) => (values[n] / 255).toFixed(2));
  $("at").textContent =
    `${column}, ${row} · ${parts.join(" · ")} · entropy ${entropies.join(", ")}`;
}

for (const [name, [text]] of Object.entries(SORTS)) $("sort").append(option(name, text));
if (D.sort in SORTS) $("sort").value = D.sort;
for (const side of ["left", "right"]) {
  D.names.forEach((name, n) => $(side).append(option(String(n), name)));
  $(side).value = String(S[side]);
  $(side).onchange = () => {
    S[side] = Number($(side).value);
    build();
  };
}
$("layers").replaceChildren(
  ...LAYERS.map((name, n) => {
    const button = Object.assign(document.createElement("button"), {
      textContent: name,
      title: `key: ${n + 1}`,
    });
    button.setAttribute("aria-pressed", String(name === S.layer));
    button.onclick = () => {
      S.layer = name;
      for (const other of $("layers").children)
        other.setAttribute("aria-pressed", String(other === button));
      draw();
    };
    return button;
  }),
);
$("previous").onclick = () => go(S.at - 1);
$("next").onclick = () => go(S.at + 1);
$("frame").onchange = () => go(Number($("frame").value));
$("sort").onchange = sort;
$("opacity").oninput = () => {
  S.opacity = $("opacity").value / 100;
  draw();
};
$("palette").onchange = () => {
  S.palette = $("palette").value;
  tell();
  draw();
};
$("split").oninput = () => {
  S.split = $("split").value / 100;
  draw();
};
$("slide").hidden = D.names.length < 2;
$("slide").onclick = () => {
  S.slide = !S.slide;
  $("pair").hidden = !S.slide;
  $("slide").setAttribute("aria-pressed", String(S.slide));
  build();
};
$("in").onclick = () => zoom(1.5);
$("out").onclick = () => zoom(1 / 1.5);
$("whole").onclick = () => {
  S.zoom = 1;
  draw();
};
$("all").onclick = () => {
  S.off.clear();
  tell();
  draw();
};
$("none").onclick = () => {
  D.classes.forEach((_, id) => S.off.add(id));
  tell();
  draw();
};
document.onkeydown = (event) => {
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.tagName === "SELECT" ||
    event.target.type === "range"
  )
    return;
  const keys = {
    ArrowLeft: "previous",
    ArrowRight: "next",
    s: "slide",
    "+": "in",
    "-": "out",
    0: "whole",
  };
  const button = keys[event.key] ? $(keys[event.key]) : $("layers").children[Number(event.key) - 1];
  if (button && !button.hidden) {
    event.preventDefault();
    button.click();
  }
};
window.onresize = draw;
build();
sort();
