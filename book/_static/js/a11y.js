// Small repairs of the theme's markup for keyboard and screen reader.
document.addEventListener("DOMContentLoaded", () => {
  // A box that scrolls sideways must be reachable with the keyboard. Looked
  // at in small portions, and again when the window changes, so that a long
  // page is never laid out at once for it.
  const boxes = [...document.querySelectorAll(
    "div.cell_output, div.cell_output pre, div.highlight pre, div.math, " +
    ".katex-display, .pst-scrollable-table-container, " +
    ".cell_output .text_html")];
  const later = window.requestIdleCallback || ((f) => setTimeout(f, 50));
  const look = (from) => {
    const some = boxes.slice(from, from + 12);
    const wide = some.map((b) => b.scrollWidth > b.clientWidth + 1);
    some.forEach((b, i) => {
      if (wide[i]) b.tabIndex = 0;
      else if (b.tabIndex === 0) b.removeAttribute("tabindex");
    });
    if (from + 12 < boxes.length) later(() => look(from + 12));
    else document.documentElement.dataset.boxes = "ready";
  };
  addEventListener("load", () => later(() => look(0)));
  let wait = 0;
  const again = () => {
    clearTimeout(wait);
    wait = setTimeout(() => look(0), 300);
  };
  addEventListener("resize", again);
  addEventListener("click", again); // something may have been unfolded
  // docutils' role for an entry of a bibliography is deprecated.
  for (const entry of document.querySelectorAll(".citation-list > .citation")) {
    entry.setAttribute("role", "listitem");
  }
  // Names that contain what is written on the control.
  for (const button of document.querySelectorAll("button[aria-label]")) {
    const text = button.textContent.trim();
    if (text && !button.getAttribute("aria-label").includes(text)) {
      button.removeAttribute("aria-label");
    }
  }
  for (const summary of document.querySelectorAll("summary[aria-label]")) {
    summary.removeAttribute("aria-label");
  }
});
