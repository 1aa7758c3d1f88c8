// Rows are sorted by the column whose name is clicked: numbers from the largest, texts from the first.
for (const table of document.querySelectorAll("table.sortable")) table.querySelectorAll("thead th").forEach((th, n) => {
  const button = document.createElement("button"), body = table.tBodies[0];
  button.type = "button";
  button.append(...th.childNodes);
  th.append(button);
  button.onclick = () => {
    const text = row => row.cells[n].textContent, number = row => parseFloat(text(row).replaceAll(",", ""));
    const numbers = th.className == "number", first = numbers ? "descending" : "ascending";
    const now = th.ariaSort != first ? first : numbers ? "ascending" : "descending", sign = now == "ascending" ? 1 : -1;
    const order = numbers ? (a, b) => number(a) - number(b) : (a, b) => text(a).localeCompare(text(b));
    body.append(...[...body.rows].sort((a, b) => sign * order(a, b)));
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    th.ariaSort = now;
  };
});
