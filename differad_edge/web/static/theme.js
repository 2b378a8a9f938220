// Before the first paint, so that a dark control room is not lit up by a white page.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("theme") || "auto";
    } catch {
      return "auto"; // storage may be switched off
    }
  };
  const apply = () => {
    const choice = chosen();
    root.dataset.themeChoice = choice;
    root.dataset.theme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
    dispatchEvent(new Event("themechange"));
  };
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  window.cycleTheme = () => {
    const order = ["auto", "light", "dark"];
    const next = order[(order.indexOf(root.dataset.themeChoice) + 1) % order.length];
    try {
      localStorage.setItem("theme", next);
    } catch {
      // then it lasts as long as the page
    }
    apply();
    if (root.dataset.themeChoice !== next) {
      root.dataset.themeChoice = next;
      root.dataset.theme = next === "auto" ? (dark.matches ? "dark" : "light") : next;
      dispatchEvent(new Event("themechange"));
    }
  };
  apply();
})();
