"use strict";

const part = (id) => document.getElementById(id);
let gallery = { images: 0, max_bytes: Infinity, mser: false };
let chosen = null; // the image that was searched last
let searches = 0; // a late answer to an earlier search is not shown

function say(text, wrong = false) {
  part("status").textContent = text;
  part("status").className = wrong ? "wrong" : "";
}

// textContent, never markup: paths and messages may hold anything
function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function item(result) {
  const image = element("img");
  image.alt = `image ${result.rank} cannot be shown`;
  image.loading = "lazy";
  image.src = result.image;
  const path = element("span");
  // long paths may be broken after a slash
  path.append(...result.path.split(/(?<=\/)/).flatMap((name) => [name, element("wbr")]));
  const made = element("li");
  made.append(image, element("b", `${result.rank}: ${result.score.toFixed(3)}`), path);
  return made;
}

async function search() {
  const file = chosen;
  if (!file) return;
  const number = ++searches;
  const preview = part("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  part("results").replaceChildren();
  if (file.size > gallery.max_bytes) return say(`The image has more than ${gallery.max_bytes / 2 ** 20} MB.`, true);
  say("Searching …");
  const modality = document.querySelector("input[name=modality]:checked").value;
  try {
    const response = await fetch(`/search?modality=${modality}`, {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
    });
    if (!response.ok) throw new Error(await response.text());
    const found = await response.json();
    if (number !== searches) return;
    const kind = found.infrared ? "infrared" : "visible";
    say(`${file.name}: ${kind}${found.guessed ? " (guessed from its colours)" : ""}. Rank and cosine similarity of each image:`);
    part("results").replaceChildren(...found.results.map(item));
  } catch (error) {
    if (number === searches) say(`Not searched: ${error.message}`, true);
  }
}

function choose(files) {
  if (!files.length) return;
  chosen = files[0];
  search();
}

part("preview").addEventListener("error", () => { part("preview").hidden = true; });
part("file").addEventListener("change", (event) => { choose(event.target.files); });
part("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); part("file").click(); }
});
document.querySelectorAll("input[name=modality]").forEach((input) => input.addEventListener("change", search));
// the whole window takes images: one that misses the field should not replace the page
window.addEventListener("dragover", (event) => { event.preventDefault(); part("drop").classList.add("over"); });
window.addEventListener("dragleave", () => part("drop").classList.remove("over"));
window.addEventListener("drop", (event) => {
  event.preventDefault();
  part("drop").classList.remove("over");
  choose(event.dataTransfer.files);
});

fetch("/gallery").then((response) => response.json()).then((answer) => {
  gallery = answer;
  part("size").textContent = `in ${gallery.images.toLocaleString("en")} images${gallery.mser ? ", re-ranked with MSER" : ""}`;
  document.querySelector(`input[name=modality][value=${gallery.modality}]`).checked = true;
});
