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
