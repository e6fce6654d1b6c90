// A question in a dialog; resolves to whether the answer was yes. Escape is no.

import { byId, setText } from "./dom.js";

export function confirmed({ title, text, yes, isDangerous = false }) {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), yes);
  byId("confirm-yes").classList.toggle("danger", isDangerous);
  return new Promise((resolve) => {
    const end = (answer) => () => {
      dialog.returnValue = answer;
      dialog.close();
    };
    byId("confirm-yes").onclick = end("yes");
    byId("confirm-no").onclick = end("no");
    dialog.returnValue = "no";
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.oncancel = () => (dialog.returnValue = "no");
    dialog.showModal();
    byId("confirm-no").focus();
  });
}
