// The meaning of a glossary term, on hover and on focus. The texts stand at
// the end of the page; each link names its own by aria-describedby.
document.addEventListener("DOMContentLoaded", () => {
  let open = null, timer = 0;
  const hide = () => {
    clearTimeout(timer);
    if (open) open.hidden = true;
    open = null;
  };
  const show = (link) => {
    const tip = document.getElementById(link.getAttribute("aria-describedby"));
    clearTimeout(timer);
    if (!tip || tip === open) return;
    hide();
    open = tip;
    tip.hidden = false;
    const at = link.getClientRects()[0], gap = 8;
    const wide = document.documentElement.clientWidth;
    const left = Math.min(at.left, wide - tip.offsetWidth - gap);
    const above = at.top > tip.offsetHeight + gap;
    const top = above ? at.top - tip.offsetHeight - 4 : at.bottom + 4;
    tip.style.left = `${Math.max(gap, left) + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  };
  const leave = () => { clearTimeout(timer); timer = setTimeout(hide, 250); };
  for (const link of document.querySelectorAll("a.zh-term")) {
    link.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "touch") show(link);
    });
    link.addEventListener("pointerleave", leave);
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", hide);
  }
  for (const tip of document.querySelectorAll(".zh-tip")) {
    tip.addEventListener("pointerenter", () => clearTimeout(timer));
    tip.addEventListener("pointerleave", leave);
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
});

// On a phone the style sheet leaves far cells for later, so that the page
// answers sooner. When it rests they follow, a few at a time: whoever
// searches, jumps or captures the whole page finds everything in place.
addEventListener("load", () => {
  if (!matchMedia("(max-width: 767.98px)").matches) return;
  const far = [...document.querySelectorAll(
    "div.cell, .bd-article div.math, .bd-article dl.py")];
  const rest = window.requestIdleCallback ?? setTimeout;
  const some = () => {
    for (const each of far.splice(0, 6)) {
      each.style.contentVisibility = "visible";
    }
    if (far.length) requestAnimationFrame(() => rest(some));
  };
  rest(some);
});
