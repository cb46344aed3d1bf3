// The colours chosen, put on the page before it is first drawn. A plain script, so that it runs
// at once. Storage may be denied (private windows): then the choice lasts as long as the page.
(() => {
  const root = document.documentElement;
  const choices = ["auto", "light", "dark"];
  const remembered = () => {
    try {
      return localStorage.getItem("snatgw-theme");
    } catch {
      return null;
    }
  };
  const choose = (theme) => {
    root.dataset.theme = choices.includes(theme) ? theme : "auto";
    document.dispatchEvent(new CustomEvent("colours"));
  };
  choose(remembered());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(root.dataset.theme));
  document.addEventListener("DOMContentLoaded", () => {
    for (const input of document.querySelectorAll("#theme input")) {
      input.checked = input.value === root.dataset.theme;
      input.addEventListener("change", () => {
        choose(input.value);
        try {
          localStorage.setItem("snatgw-theme", input.value);
        } catch {
          // not remembered
        }
      });
    }
  });
})();
