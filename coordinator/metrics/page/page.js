// The status page: asks /api/jobs and /api/jobs/ID and shows what comes. All
// that comes is put in as text, never as markup.
"use strict";

const POLL_MILLIS = 2000;
const SLOW = 0.7;
const PHASES = [
  ["compute", "compute"],
  ["wait", "wait for a peer"],
  ["reduce", "reduce gradients"],
  ["other", "other"],
];

const at = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  return element;
}

function scaled(value, units, step) {
  let unit = 0;
  while (Math.abs(value) >= step && unit + 1 < units.length) {
    value /= step;
    ++unit;
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0
    : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits) + units[unit];
}
const bytes = (n) => scaled(n || 0, [" B", " kB", " MB", " GB", " TB"], 1000);
const count = (n) => scaled(n || 0, ["", "k", "M", "G"], 1000);

function duration(seconds) {
  if (!(seconds > 0)) return "–";
  if (seconds < 0.9995) return (seconds * 1000).toFixed(0) + " ms";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60,
                 whole % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, i) => i ? String(part).padStart(2, "0") : part)
      .join(":");
}

function plain(number, digits) {
  return Number.isFinite(number) && number !== 0 ? number.toFixed(digits) : "–";
}

function chosenId() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch (error) {
    return "";
  }
}

function showJobs(jobs) {
  if (!chosenId() && jobs.length) {
    const first = jobs.find((job) => job.state === "RUNNING") || jobs[0];
    history.replaceState(null, "", "#" + encodeURIComponent(first.id));
  }
  const items = jobs.map((job) => {
    const item = make("li");
    const link = make("a", "", job.id);
    link.href = "#" + encodeURIComponent(job.id);
    if (job.id === chosenId()) link.setAttribute("aria-current", "page");
    link.append(make("small", "",
        `${job.state.toLowerCase()}, ${job.step} of ${job.total_steps}`));
    item.append(link);
    return item;
  });
  at("jobs").replaceChildren(...items);
  at("empty").textContent = jobs.length ? "Reading the job…"
    : "There are no jobs yet.";
}

function showFacts(job) {
  const step = job.step || {};
  const checkpoint = job.checkpoint;
  const wire = (step.activation_wire_bytes || 0) +
      (step.gradient_wire_bytes || 0);
  const raw = (step.activation_raw_bytes || 0) + (step.gradient_raw_bytes || 0);
  const facts = [
    ["step", job.step ? `${step.step + 1} of ${step.total_steps}` : "–"],
    ["loss", plain(step.loss, 4)],
    ["validation", plain(job.validation_loss, 4)],
    ["accuracy", job.validation_accuracy === undefined
      ? "–" : (job.validation_accuracy * 100).toFixed(2) + " %"],
    ["tokens/s", step.tokens_per_second ? count(step.tokens_per_second) : "–"],
    ["step time", duration(step.step_seconds)],
    ["time left", duration(job.eta_seconds)],
    ["goodput", job.goodput_ratio
      ? (job.goodput_ratio * 100).toFixed(1) + " %" : "–"],
    ["sent, of raw", raw ? `${bytes(wire)} of ${bytes(raw)}` : "–"],
    ["checkpoint", checkpoint
      ? duration((job.now_millis - checkpoint.time_millis) / 1000) + " ago"
      : "none"],
    ["generation", job.restarts
      ? `${job.generation}, restarts: ${job.restarts}` : job.generation],
  ];
  if (job.verify_failures) facts.push(["verify failures", job.verify_failures]);
  at("facts").replaceChildren(...facts.map(([name, value]) => {
    const fact = make("div");
    fact.append(make("dt", "", name), make("dd", "", String(value)));
    return fact;
  }));
  const share = job.step && step.total_steps
    ? (step.step + 1) / step.total_steps : 0;
  at("done").style.width = (100 * Math.min(1, share)) + "%";
}

function showLoss(losses) {
  if (losses.length < 2) {
    at("loss").replaceChildren(make("p", "dim", "not measured yet"));
    return;
  }
  const values = losses.map((point) => point.loss);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const first = losses[0].step;
  const span = losses[losses.length - 1].step - first || 1;
  const points = losses.map((point) => {
    const x = 1000 * (point.step - first) / span;
    const y = 98 - 96 * (point.loss - low) / (high - low || 1);
    return x.toFixed(1) + "," + y.toFixed(1);
  }).join(" ");
  const picture = shape("svg", {
    viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img",
    "aria-label": `loss from ${values[0].toFixed(4)} to ` +
        values[values.length - 1].toFixed(4),
  });
  picture.append(shape("polyline",
      {points, "vector-effect": "non-scaling-stroke"}));
  const scale = make("div", "scale");
  scale.append(
      make("span", "", `step ${first + 1}: ${values[0].toFixed(4)}`),
      make("span", "", `${low.toFixed(4)} to ${high.toFixed(4)}`),
      make("span", "", `step ${first + span + 1}: ` +
          values[values.length - 1].toFixed(4)));
  at("loss").replaceChildren(picture, scale);
}

function showStrip(ranks, hasReplicas) {
  const longest = Math.max(...ranks.map((rank) => rank.step_seconds), 1e-9);
  at("strip").replaceChildren(...ranks.map((rank) => {
    const known = rank.compute_seconds + rank.wait_seconds +
        rank.reduce_seconds;
    const seconds = {
      compute: rank.compute_seconds, wait: rank.wait_seconds,
      reduce: rank.reduce_seconds,
      other: Math.max(0, rank.step_seconds - known),
    };
    const row = make("div", "worker");
    row.append(make("span", "",
        `stage ${rank.stage} · replica ${rank.replica}`));
    const bar = make("div", "bar");
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", PHASES.map(
        ([phase]) => `${phase} ${duration(seconds[phase])}`).join(", "));
    bar.title = bar.getAttribute("aria-label") +
        (rank.worker_id ? "; " + rank.worker_id : "");
    for (const [phase] of PHASES) {
      const part = make("div", phase);
      part.style.width = (100 * seconds[phase] / longest) + "%";
      bar.append(part);
    }
    const figures = make("span", "figures",
        `${duration(rank.step_seconds)} · ` +
        `${(100 * (1 - rank.idle_ratio)).toFixed(0)} % busy · ` +
        bytes(rank.memory_bytes));
    // With one replica the score says as much about the plan.
    if (hasReplicas && rank.straggler_score > 0 &&
        rank.straggler_score < SLOW) {
      figures.append(make("span", "slow",
          ` · slow: pace ${rank.straggler_score.toFixed(2)}`));
    }
    row.append(bar, figures);
    return row;
  }));
}

function showLinks(links) {
  const heads = ["boundary", "direction", "replica", "codec", "raw", "wire",
                 "ratio", "rate", "busy", "error"];
  const head = make("tr");
  heads.forEach((name, i) =>
    head.append(make("th", i > 3 ? "number" : "", name)));
  const rows = links.map((link) => {
    const row = make("tr");
    row.append(
        make("td", "", `${link.boundary} – ${link.boundary + 1}`),
        make("td", "", link.is_gradient ? "backward" : "forward"),
        make("td", "", String(link.replica)));
    const codec = make("td");
    codec.append(make("code", "", link.codec));
    row.append(codec);
    const numbers = [
      bytes(link.raw_bytes), bytes(link.wire_bytes),
      plain(link.compression_ratio, 1), bytes(link.bytes_per_second) + "/s",
      (100 * link.busy_ratio).toFixed(0) + " %",
      plain(link.relative_error, 4),
    ];
    for (const number of numbers) row.append(make("td", "number", number));
    return row;
  });
  at("links").replaceChildren(head, ...rows);
  if (!rows.length) {
    at("links").replaceChildren(make("caption", "dim",
        "no boundary between stages, or nothing sent yet"));
  }
}

function showEvents(events) {
  at("events").replaceChildren(...events.slice(-12).reverse().map((event) => {
    const item = make("li");
    const time = new Date(event.time_millis);
    item.append(make("span", "dim", time.toLocaleTimeString()),
        make("span", "kind " + event.kind.replace(/[^a-z]/g, ""), event.kind),
        make("span", "text", event.text));
    return item;
  }));
  if (!events.length) {
    at("events").replaceChildren(make("p", "dim", "none yet"));
  }
}

function showJob(job) {
  at("empty").hidden = true;
  at("figures").hidden = false;
  document.title = job.id + " – deltapipe";
  at("name").textContent = job.id;
  at("state").textContent = job.state;
  at("state").className = job.state;
  at("reason").textContent = job.reason;
  showFacts(job);
  showLoss(job.losses);
  showStrip(job.ranks, job.num_replicas > 1);
  showLinks(job.links);
  showEvents(job.events);
}

async function ask(path) {
  const answer = await fetch(path, {cache: "no-store"});
  if (answer.ok) return answer.json();
  const error = new Error((await answer.text()).trim());
  error.answered = true;
  throw error;
}

async function refresh() {
  try {
    showJobs((await ask("/api/jobs")).jobs);
    const id = chosenId();
    if (id) {
      try {
        const job = await ask("/api/jobs/" + encodeURIComponent(id));
        if (id === chosenId()) showJob(job);
      } catch (error) {
        if (!error.answered) throw error;
        at("figures").hidden = true;
        at("empty").hidden = false;
        at("empty").textContent = error.message;
      }
    }
    at("trouble").hidden = true;
  } catch (error) {
    at("trouble").textContent = error.answered ? error.message
      : "the coordinator does not answer";
    at("trouble").hidden = false;
  }
}

async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_MILLIS);
}

for (const [phase, label] of PHASES) {
  const item = make("span");
  item.append(make("span", "swatch " + phase), label);
  at("legend").append(item);
}
addEventListener("hashchange", refresh);
poll();
