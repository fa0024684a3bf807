"use strict";
(() => {
  const root = document.documentElement;
  const button = document.querySelector(".theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  if (stored()) root.dataset.theme = stored();
  name();
  dark.addEventListener("change", name);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a page from a file may have no storage */ }
    name();
  });

  const menu = document.querySelector(".menu"), parts = document.getElementById("parts");
  const open = (on) => { parts.classList.toggle("open", on); menu.setAttribute("aria-expanded", on); };
  menu.addEventListener("click", () => open(!parts.classList.contains("open")));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") open(false); });
  document.addEventListener("click", (event) => { if (event.target !== menu) open(false); });

  for (const picture of document.querySelectorAll(".picture")) {
    const stage = picture.querySelector(".stage");
    const slider = stage.querySelector("input");
    const move = () => {
      stage.style.setProperty("--at", slider.value + "%");
      slider.setAttribute("aria-valuetext", slider.value + " % " + picture.dataset.left);
    };
    const choose = (side) => {
      const view = picture.querySelector(`input[data-side=${side}]:checked`).value;
      for (const image of stage.querySelectorAll("img")) image.classList.toggle(side, image.dataset.view === view);
      const image = stage.querySelector(`img[data-view="${view}"]`);
      stage.querySelector(side === "left" ? ".l" : ".r").textContent = image.dataset.caption;
      picture.dataset[side] = image.alt;
    };
    slider.addEventListener("input", move);
    for (const radio of picture.querySelectorAll(".pick input")) radio.addEventListener("change", () => { choose(radio.dataset.side); move(); });
    choose("left"); choose("right"); move();
  }

  for (const copy of document.querySelectorAll("img[data-copy]")) {
    copy.src = document.getElementById(copy.dataset.copy).src;
    copy.closest("figure").hidden = false;
  }

  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", (event) => {
    const text = event.target instanceof Element && event.target.getAttribute("data-tip");
    tip.hidden = !text;
    if (text) tip.textContent = text;
  });
  document.addEventListener("pointermove", (event) => {
    if (tip.hidden) return;
    const left = Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = (event.clientY > 60 ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
  });
})();
