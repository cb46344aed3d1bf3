// Building the page. All data goes in as text: names come from a configuration, and nothing of it
// is ever read as markup.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element: attributes, `text`, `dataset`, `on…` listeners, then children (null: left out). */
export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null) continue;
    if (name === "text") made.textContent = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
};

/** Change a text only if it is another: what is selected stays selected. */
export const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/** The same with a text of parts, which may go to the next line between them and nowhere else. */
export const setParts = (node, parts) => {
  if (node.textContent === parts.join("")) return;
  node.replaceChildren(...parts.flatMap((part, index) => (index === 0 ? [part] : [element("wbr"), part])));
};

/** Change a data attribute only if it is another. */
export const setData = (node, name, value) => {
  if (node.dataset[name] !== value) node.dataset[name] = value;
};

/** Children of a list that are used again from one update to the next, in place. */
export class Rows {
  constructor(container, make) {
    this.container = container;
    this.make = make; // () => {node, …parts}
    this.rows = [];
  }

  /** One child for each item; `fill(row, item, index)` puts the item in. */
  update(items, fill) {
    while (this.rows.length < items.length) {
      const row = this.make();
      this.rows.push(row);
      this.container.append(row.node);
    }
    while (this.rows.length > items.length) this.rows.pop().node.remove();
    items.forEach((item, index) => fill(this.rows[index], item, index));
  }
}

/**
 * Rows for a table: `columns` are classes, `titles` what a cell is called where it has no column
 * above it. Parts are in `cells`. Roles are said because cards (parts.css) lose a table's own.
 */
export const tableRows = (container, columns, titles = []) =>
  new Rows(container, () => {
    const cells = columns.map((name, index) =>
      element("td", { class: name || null, role: "cell", "data-title": titles[index] }),
    );
    return { node: element("tr", { role: "row" }, ...cells), cells };
  });

/** "a", "b" as a button that looks like a link. */
export const pick = (label, onclick) => element("button", { type: "button", class: "pick", "aria-label": label, onclick });
