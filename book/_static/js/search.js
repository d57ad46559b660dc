// Full-text search over all sections, in the browser and from files too.
// The data stand in window.zhSearch, the index is made by MiniSearch.
document.addEventListener("DOMContentLoaded", () => {
  const { pages, parts } = window.zhSearch;
  const field = document.querySelector(".bd-search-container input, #zh-search");
  const target = document.getElementById("search-results");
  if (!field || !target) return;
  const stemmer = new Stemmer();
  const skip = new Set([...stopwords, ..."i me my you your we our do does did \
    how what why when where which who can could should would has have had am \
    was were been be get got from about so than then any some its make".split(/\s+/)]);
  const word = (w) => {
    w = w.toLowerCase();
    return skip.has(w) || w.length < 2 ? null : stemmer.stemWord(w);
  };
  // "mini-batch" is found as mini, batch and minibatch.
  const words = (s) => s.split(/[^\p{L}\p{N}]+/u).concat(
    (s.match(/\p{L}+(?:-\p{L}+)+/gu) || []).map((w) => w.replace(/-/g, "")));
  const index = new MiniSearch({
    fields: ["title", "page", "text", "code"],
    idField: "id",
    tokenize: words,
    processTerm: word,
    searchOptions: {
      boost: { title: 3, page: 2, text: 1, code: 0.4 },
      prefix: (t) => t.length > 3,
      fuzzy: (t) => (t.length > 5 ? 0.15 : false),
      weights: { fuzzy: 0.2, prefix: 0.3 },
    },
  });
  index.addAll(parts.map(([page, , title, text, code], id) => ({
    id, title, page: pages[page].t, text, code,
  })));

  /** Pages in order, each with its best sections. */
  const find = (query) => {
    const asked = new Set(words(query).map(word)
      .filter(Boolean)).size || 1;
    const found = new Map();
    for (const hit of index.search(query)) {
      const share = new Set(hit.queryTerms).size / asked;
      const page = parts[hit.id][0];
      const score = hit.score * share * (pages[page].m ? 0.5 : 1);
      if (!found.has(page)) found.set(page, { page, hits: [] });
      found.get(page).hits.push({ id: hit.id, score, terms: hit.terms });
    }
    for (const one of found.values()) {
      one.hits.sort((a, b) => b.score - a.score);
      one.score = one.hits.slice(0, 4)
        .reduce((sum, hit, i) => sum + hit.score / 2 ** i, 0);
    }
    return [...found.values()].sort((a, b) => b.score - a.score);
  };
  window.zhFind = (query) => find(query).map((one) => pages[one.page].u);

  const make = (tag, attributes, ...inside) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...inside);
    return node;
  };
  /** The piece of text around the first word found, marked. */
  const snippet = (hit) => {
    const terms = new Set(hit.terms), text = parts[hit.id][3];
    const words = text.split(/(?<=\s)/);
    const known = words.map((w) =>
      w.split(/[^\p{L}\p{N}]+/u).some((x) => x && terms.has(word(x))));
    const first = Math.max(0, known.indexOf(true) - 8);
    const line = make("p", {});
    if (first) line.append("… ");
    for (let i = first; i < Math.min(words.length, first + 32); i++) {
      line.append(known[i] ? make("mark", {}, words[i]) : words[i]);
    }
    if (first + 32 < words.length) line.append("…");
    return line;
  };
  const root = document.documentElement.dataset.content_root || "./";
  const show = (query) => {
    target.replaceChildren();
    target.dataset.q = query;
    if (!query.trim()) return;
    const found = find(query);
    const count = found.length === 1 ? "1 page" : `${found.length} pages`;
    target.append(make("p", { className: "zh-count", role: "status" },
      found.length ? `${count} found` : "Nothing found. Fewer words, or " +
      "another spelling? The glossary lists the terms of the book."));
    const list = make("ol", { className: "zh-found" });
    for (const one of found.slice(0, 10)) {
      const page = pages[one.page];
      const item = make("li", {}, make("a", { href: root + page.u,
        className: "zh-page" }, page.t));
      for (const hit of one.hits.slice(0, 3)) {
        const [, anchor, title] = parts[hit.id];
        const link = make("a", { href: `${root}${page.u}#${anchor}` }, title);
        item.append(make("div", { className: "zh-hit" }, link, snippet(hit)));
      }
      list.append(item);
    }
    target.append(list);
  };
  field.value = new URLSearchParams(location.search).get("q") || "";
  let wait = 0;
  field.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => show(field.value), 120);
  });
  show(field.value);
});
