"use strict";
// Every text goes in as a text node. Offsets count characters as Python does, not UTF-16 units: see `spans`.

const WORDS = {
  fr: {
    tagline: "des modèles de langue, petits et rapides", token: "Jeton d'accès", enter: "Entrer", model: "Modèle",
    run: "Essayer", hint: "Ctrl + Entrée", text: "Texte", second: "Second texte", question: "Question", context: "Texte où chercher",
    labels: "Étiquettes, séparées par des virgules", multi: "Plusieurs peuvent être justes", masked: "Texte avec un <mask>",
    none: "Aucune entité trouvée.", unanswered: "Le texte ne donne pas de réponse.", similarity: "similarité (cosinus)",
    numbers: "nombres", took: "Réponse en {} ms", failed: "Le serveur ne répond pas.", refused: "Jeton refusé.",
    tasks: { predict: "Classer", ner: "Entités", qa: "Question", "zero-shot": "Étiqueter", "fill-mask": "Mot masqué", embed: "Vecteurs" },
    examples: {
      text: "Une cave sombre, un fromage sublime.", pair: ["Il pleut sur Brest.", "Le sol est sec."],
      ner: "Claire a quitté Lyon pour travailler chez un fromager du Jura.", question: "Où Claire travaille-t-elle ?",
      context: "Claire a quitté Lyon pour le Jura. Elle y travaille chez un fromager.", zero: "Le train de Bordeaux est en retard.",
      labels: "transport, cuisine, sport", mask: "Le fromage est <mask> douze mois.", embed: ["Une cave sombre.", "Un cellier frais."],
    },
  },
  en: {
    tagline: "language models, small and fast", token: "Access token", enter: "Enter", model: "Model", run: "Try it",
    hint: "Ctrl + Enter", text: "Text", second: "Second text", question: "Question", context: "Text to search",
    labels: "Labels, with commas between them", multi: "More than one may hold", masked: "Text with one <mask>",
    none: "No entity found.", unanswered: "The text gives no answer.", similarity: "similarity (cosine)", numbers: "numbers",
    took: "Answered in {} ms", failed: "The server does not answer.", refused: "Token refused.",
    tasks: { predict: "Classify", ner: "Entities", qa: "Question", "zero-shot": "Label", "fill-mask": "Masked word", embed: "Vectors" },
    examples: {
      text: "A dark cellar, a superb cheese.", pair: ["It rains on Brest.", "The ground is dry."],
      ner: "Claire left Lyon to work for a cheesemaker in the Jura.", question: "Where does Claire work?",
      context: "Claire left Lyon for the Jura. She works there for a cheesemaker.", zero: "The train from Bordeaux is late.",
      labels: "transport, cooking, sport", mask: "The cheese is <mask> for twelve months.", embed: ["A dark cellar.", "A cool cave."],
    },
  },
};

const $ = (id) => document.getElementById(id);
let language = (navigator.language || "fr").toLowerCase().startsWith("fr") ? "fr" : "en";
let token = "", info = null, task = "", last = null;

function make(tag, content, className) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...[content ?? []].flat());
  return node;
}

function percent(score) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(score);
}

function bars(rows) {
  return rows.map(([name, score]) => {
    const fill = make("b"), inside = score >= 0 && score <= 1;
    fill.style.width = `${inside ? 100 * score : 0}%`;
    return make("div", [make("span", name, "name"), make("span", inside ? percent(score) : score.toFixed(3), "score"), make("i", fill)], "bar");
  });
}

// The text with its spans marked; one that begins inside another is left out.
function spans(text, found) {
  const letters = Array.from(text), parts = [];
  let at = 0;
  for (const one of [...found].sort((a, b) => a.start - b.start)) {
    if (one.start < at || one.end <= one.start) continue;
    parts.push(letters.slice(at, one.start).join(""));
    const marked = make("mark", letters.slice(one.start, one.end).join(""), one.color);
    marked.title = percent(one.score);
    if (one.label) marked.append(make("small", one.label));
    parts.push(marked);
    at = one.end;
  }
  return make("p", [...parts, letters.slice(at).join("")], "text");
}

const words = () => WORDS[language];
const served = (name) => info.models.filter((one) => one.endpoints.includes(name));
const chosen = () => served(task).find((one) => one.name === $("model").value) || served(task)[0];
const value = (id) => $(id).value;

const TASKS = {
  predict: {
    fields: () => chosen().kind === "pair"
      ? [area("text", words().examples.pair[0]), area("second", words().examples.pair[1])] : [area("text", words().examples.text)],
    body: () => ({ inputs: chosen().kind === "pair" ? [value("text"), value("second")] : value("text"), truncate: true }),
    show: (answer) => bars(answer.map((one) => [one.label, one.score])),
  },
  ner: {
    fields: () => [area("text", words().examples.ner)],
    body: () => ({ inputs: value("text") }),
    show: (answer, body) => {
      const groups = [...new Set(chosen().labels.map((label) => label.replace(/^[BI]-/, "")))].filter((label) => label !== "O");
      const found = answer.map((one) => ({ ...one, label: one.entity_group, color: `c${groups.indexOf(one.entity_group) % 6}` }));
      return [spans(body.inputs, found), ...(found.length ? [] : [make("p", words().none, "note")])];
    },
  },
  qa: {
    fields: () => [line("question", words().examples.question), area("context", words().examples.context)],
    body: () => ({ inputs: { question: value("question"), context: value("context") } }),
    show: (answer, body) => [
      make("p", answer.answer || words().unanswered, "answer"),
      spans(body.inputs.context, [answer]),
      make("p", percent(answer.score), "note"),
    ],
  },
  "zero-shot": {
    fields: () => [area("text", words().examples.zero), line("labels", words().examples.labels), check("multi")],
    body: () => ({
      inputs: value("text"), labels: value("labels").split(",").map((one) => one.trim()).filter(Boolean),
      template: language === "fr" ? "Ce texte parle de {}." : "This text is about {}.", multi_label: $("multi").checked,
    }),
    show: (answer) => bars(answer.labels.map((label, i) => [label, answer.scores[i]])),
  },
  "fill-mask": {
    fields: () => [area("text", words().examples.mask, "masked")],
    body: () => ({ inputs: value("text") }),
    show: (answer) => [...bars(answer.map((one) => [one.token_str, one.score])), make("p", answer[0].sequence, "note")],
  },
  embed: {
    fields: () => [area("text", words().examples.embed[0]), area("second", words().examples.embed[1])],
    body: () => ({ inputs: [value("text"), value("second")].filter((one) => one.trim()), truncate: true }),
    show: (answer) => {
      const numbers = answer[0].slice(0, 8).map((x) => x.toFixed(3)).join(", ");
      const vector = make("p", `${numbers}, … (${answer[0].length} ${words().numbers})`, "note");
      if (answer.length < 2) return [vector];
      const cosine = answer[0].reduce((sum, x, i) => sum + x * answer[1][i], 0);
      return [make("p", cosine.toFixed(3), "big"), make("p", words().similarity, "note"), vector];
    },
  },
};

function field(id, input, name, content) {
  input.id = id;
  input.value = content;
  input.dataset.example = content;
  const label = make("label", words()[name || id]);
  label.htmlFor = id;
  return make("div", [label, input], "field");
}
const area = (id, content, name) => field(id, make("textarea"), name, content);
const line = (id, content, name) => field(id, make("input"), name, content);
function check(id) {
  const box = make("input");
  box.type = "checkbox";
  box.id = id;
  return make("label", [box, words()[id]], "check field");
}

// What a person wrote stays when the language or the model changes; examples do not.
function drawFields() {
  const kept = {};
  for (const one of $("fields").querySelectorAll("textarea, input:not([type=checkbox])")) {
    if (one.value !== one.dataset.example) kept[one.id] = one.value;
  }
  $("fields").replaceChildren(...TASKS[task].fields());
  for (const [id, content] of Object.entries(kept)) if ($(id)) $(id).value = content;
}

function draw() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = words()[node.dataset.text];
  for (const node of document.querySelectorAll("[data-language]")) node.setAttribute("aria-pressed", node.dataset.language === language);
  $("tagline").textContent = words().tagline;
  $("hint").textContent = matchMedia("(hover: hover)").matches ? words().hint : "";
  if (!info) return;
  $("tasks").replaceChildren(...Object.keys(TASKS).filter((name) => served(name).length).map((name) => {
    const button = make("button", words().tasks[name]);
    button.type = "button";
    button.dataset.task = name;
    button.setAttribute("aria-pressed", name === task);
    button.onclick = () => open(name);
    return button;
  }));
  drawFields();
  show();
}

function open(name) {
  if (name !== task) last = null;
  task = name;
  $("model").replaceChildren(...served(task).map((one) => make("option", one.name)));
  $("which").hidden = served(task).length < 2;
  $("fields").replaceChildren();
  draw();
}

function show() {
  if (!last) { $("result").replaceChildren(); $("took").textContent = ""; return; }
  $("result").replaceChildren(...(last.error ? [make("p", last.error, "error")] : TASKS[task].show(last.answer, last.body)));
  $("took").textContent = last.error ? "" : words().took.replace("{}", Math.round(last.took));
}

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
}

async function run(event) {
  event?.preventDefault();
  const body = TASKS[task].body(), asked = task, began = performance.now();
  $("run").disabled = true;
  let found;
  try {
    const response = await call(`models/${encodeURIComponent(chosen().name)}/${task}`, body);
    const answer = await response.json();
    found = response.ok ? { answer, body, took: performance.now() - began } : { error: answer.error };
  } catch {
    found = { error: words().failed };
  }
  $("run").disabled = false;
  if (asked === task) { last = found; show(); }
}

async function enter(event) {
  event?.preventDefault();
  token = $("token").value;
  let response;
  try {
    response = await call("info");
  } catch {
    $("result").replaceChildren(make("p", words().failed, "error"));
    return;
  }
  $("key").hidden = response.ok;
  $("result").replaceChildren(...(response.ok || !token ? [] : [make("p", words().refused, "error")]));
  if (!response.ok) return;
  info = await response.json();
  $("tasks").hidden = $("ask").hidden = false;
  const wanted = location.hash.slice(1), offered = Object.keys(TASKS).filter((name) => served(name).length);
  open(offered.includes(wanted) ? wanted : offered[0]);
}

$("key").onsubmit = enter;
$("ask").onsubmit = run;
$("ask").onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event); };
$("model").onchange = () => { last = null; drawFields(); show(); };
for (const button of document.querySelectorAll("[data-language]")) {
  button.onclick = () => { language = button.dataset.language; draw(); };
}
draw();
enter();
