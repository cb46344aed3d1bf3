// A page whose scripts did not all arrive (a gateway that starts or ends while it is loaded) stays
// dead: modules are not asked for twice. It is loaded again until main.js says that it runs.
(() => {
  const SOON = 2_000;
  const PATIENCE = 15_000; // a request may hang instead of failing
  const again = () => document.documentElement.dataset.runs || location.reload();
  addEventListener("error", ({ target }) => target instanceof HTMLScriptElement && setTimeout(again, SOON), true);
  setTimeout(again, PATIENCE);
})();
