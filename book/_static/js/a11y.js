// Small repairs of the theme's markup for keyboard and screen reader.
document.addEventListener("DOMContentLoaded", () => {
  // A box that scrolls sideways must be reachable with the keyboard.
  const scrolls = "div.cell_output, div.highlight pre, div.math, " +
    ".katex-display, .pst-scrollable-table-container";
  for (const box of document.querySelectorAll(scrolls)) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
  }
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
