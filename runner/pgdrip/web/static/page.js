// Times in the viewer's zone, and fresh numbers: everything else works without a script.
"use strict";

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const cookie = `pgdrip_zone=${encodeURIComponent(zone)}`;
if (!document.cookie.split("; ").includes(cookie)) {
  document.cookie = `${cookie}; path=/; max-age=31536000; samesite=strict`;
  if (document.cookie.split("; ").includes(cookie)) location.reload();
}

const live = () => document.getElementById("live");
const lamp = document.getElementById("live-switch");
const isOn = () => sessionStorage.getItem("live") !== "off";

function lightUp() {
  lamp.hidden = !live();
  lamp.setAttribute("aria-pressed", String(isOn()));
}

// Never under somebody's hands: a field, an opened form, a ticked box, marked text.
function isInUse(part) {
  return part.querySelector(":focus-visible") !== null
    || part.querySelector("details.act[open], input:checked") !== null
    || !document.getSelection().isCollapsed;
}

function refresh() {
  const part = live();
  if (part && isOn() && !document.hidden && !isInUse(part)) htmx.trigger(part, "refresh");
  setTimeout(refresh, 1000 * (part ? Number(part.dataset.every) : 60));
}

if (lamp) {
  lamp.addEventListener("click", () => {
    sessionStorage.setItem("live", isOn() ? "off" : "on");
    lightUp();
  });
  lightUp();
  setTimeout(refresh, 1000 * (live() ? Number(live().dataset.every) : 60));
}

const lost = document.getElementById("lost");
for (const failure of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(failure, () => { lost.hidden = false; });
}
let opened = [];
document.addEventListener("htmx:beforeSwap", () => {
  opened = [...live().querySelectorAll("details[open]")].map((one) => one.id);
});
document.addEventListener("htmx:afterSwap", () => {
  lost.hidden = true;
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
});

for (const all of document.querySelectorAll("[data-ticks]")) {
  all.addEventListener("change", () => {
    for (const box of all.form.querySelectorAll(`[name="${all.dataset.ticks}"]`)) {
      box.checked = all.checked;
    }
  });
}
