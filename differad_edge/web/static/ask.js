// Questions before something happens, and short notices after it did.
import { byId, el } from "./dom.js";

const NOTICE_MS = 6000;

// Resolves to true for yes; anything else, Esc too, is no. `content`: nodes between the text and the buttons.
export function ask({ title, text = "", content = [], yes, no = "Cancel", danger = false, check = () => true }) {
  const dialog = byId("ask");
  return new Promise((resolve) => {
    const form = el(
      "form",
      { class: "sheet", method: "dialog" },
      el("h2", {}, title),
      text ? el("p", {}, text) : null,
      ...content,
      el(
        "div",
        { class: "ends" },
        no ? el("button", { class: "button", type: "button", value: "no", onclick: () => dialog.close("no") }, no) : null,
        el("button", { class: danger ? "button stop" : "button main", value: "yes" }, yes),
      ),
    );
    form.addEventListener("submit", (event) => {
      if (!check()) event.preventDefault();
    });
    dialog.replaceChildren(form);
    dialog.returnValue = "";
    const closed = () => {
      dialog.replaceChildren(); // a field in a closed dialog must not keep the keys to itself
      resolve(dialog.returnValue === "yes");
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
    // What changes the line is not one press of Enter away.
    form.querySelector("[autofocus], button")?.focus();
  });
}

export function notice(text, action = null) {
  const place = byId("toasts");
  const toast = el("div", { class: "toast" }, el("span", {}, text));
  if (action) {
    toast.append(
      el("button", { class: "button", onclick: () => { toast.remove(); action.run(); } }, action.name),
    );
  }
  place.append(toast);
  // On top of an open dialog, where the browser can do that.
  place.popover = "manual";
  place.hidePopover?.();
  place.showPopover?.();
  setTimeout(() => {
    toast.remove();
    if (!place.children.length) place.hidePopover?.();
  }, NOTICE_MS);
}

// Runs what may be refused, and says so in the server's words.
export async function attempt(work, done = null) {
  try {
    const answer = await work();
    if (done) notice(done);
    return answer;
  } catch (error) {
    notice(error.message);
    return null;
  }
}
