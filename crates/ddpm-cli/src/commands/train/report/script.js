"use strict";
// Pictures over time: a slider in place of the rows that stand there without a script.
for (const film of document.querySelectorAll(".frames")) {
  const frames = [...film.querySelectorAll(".frame")];
  const controls = film.parentElement.querySelector(".controls");
  const [slider, label, raw, play] = ["input[type=range]", "output", "input[type=checkbox]", "button"]
    .map((what) => controls.querySelector(what));
  const steps = [...new Set(frames.map((frame) => frame.dataset.step))];
  const show = () => {
    const step = steps[slider.value];
    const at = frames.filter((frame) => frame.dataset.step === step);
    const shown = at.find((frame) => raw && raw.checked && frame.dataset.weights === "raw") ?? at[0];
    for (const frame of frames) frame.hidden = frame !== shown;
    label.value = shown.dataset.label;
  };
  slider.max = steps.length - 1;
  slider.value = steps.length - 1;
  slider.oninput = show;
  if (raw) raw.onchange = show;
  let timer = 0;
  play.onclick = () => {
    if (timer) {
      clearInterval(timer);
      timer = 0;
    } else {
      if (slider.value === slider.max) slider.value = 0;
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (slider.value === slider.max) play.onclick();
      }, 500);
    }
    play.textContent = timer ? "stop" : "play";
    show();
  };
  film.classList.add("js");
  controls.hidden = steps.length < 2;
  show();
}

// Curves: what they say at the step under the pointer.
const short = (x) => (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(2) : String(Number(x.toPrecision(4))));
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  const frame = svg.querySelector(".frame");
  const [x0, x1] = frame.dataset.x.split(" ").map(Number);
  const log = frame.dataset.log === "1";
  const [y0, y1] = frame.dataset.y.split(" ").map((y) => (log ? Math.log(Number(y)) : Number(y)));
  const [left, top, width, height] = ["x", "y", "width", "height"].map((name) => Number(frame.getAttribute(name)));
  const curves = [...svg.querySelectorAll(".curve")].filter((curve) => !curve.hasAttribute("opacity")).map((curve) => ({
    name: curve.dataset.name,
    points: curve.getAttribute("d").slice(1).split("L").map((point) => point.split(" ").map(Number)),
  }));
  const value = (y) => {
    const at = y0 + ((top + height - y) / height) * (y1 - y0);
    return log ? Math.exp(at) : at;
  };
  const tip = chart.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
  const cursor = document.createElementNS(svg.namespaceURI, "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  svg.onpointermove = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) * svg.viewBox.baseVal.width) / box.width;
    if (at < left || at > left + width || !curves.length) return svg.onpointerleave();
    const step = x0 + ((at - left) / width) * (x1 - x0);
    const lines = curves.map(({ name, points }) => {
      const [, y] = points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      return `${name}  ${short(value(y))}`;
    });
    tip.textContent = [`step ${Math.round(step)}`, ...lines].join("\n");
    tip.hidden = false;
    cursor.setAttribute("d", `M${at} ${top}v${height}`);
  };
  svg.onpointerleave = () => {
    tip.hidden = true;
    cursor.removeAttribute("d");
  };
}
document.documentElement.dataset.ready = "";
