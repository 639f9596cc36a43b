// Shows the rows of the table of errors that contain every word of the filter.
document.addEventListener("DOMContentLoaded", () => {
  const input = document.querySelector(".filter input");
  if (!input) return;
  const groups = [];
  for (const row of document.querySelectorAll("table.errors tbody tr")) {
    if (row.classList.contains("group")) groups.push({ head: row, rows: [] });
    else groups.at(-1).rows.push(row);
  }
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    for (const { head, rows } of groups) {
      let here = 0;
      for (const row of rows) {
        const text = `${head.textContent} ${row.textContent}`.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        here += !row.hidden;
      }
      head.hidden = !here;
      shown += here;
      all += rows.length;
    }
    document.querySelector(".filter output").textContent = `${shown} of ${all}`;
  };
  input.addEventListener("input", show);
  show();
});
