// What is pointed at, or gone through by keys: of a figure, the numbers of a point; of a citation, what it cites. And
// all code at once.
addEventListener("DOMContentLoaded", () => {
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip", hidden: true }));
  tip.setAttribute("role", "status"); // so that it is read out when keys ask for it

  function show(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(x - tip.offsetWidth / 2, most))}px`;
    tip.style.top = `${y > tip.offsetHeight + 20 ? y - tip.offsetHeight - 14 : y + 20}px`;
  }
  const hide = () => (tip.hidden = true);
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => event.key === "Escape" && hide());

  for (const figure of document.querySelectorAll("[data-hints]")) {
    const hints = JSON.parse(figure.dataset.hints);
    const mark = figure.appendChild(Object.assign(document.createElement("span"), { className: "mark", hidden: true }));
    const tell = ([x, y, text]) => {
      const box = figure.getBoundingClientRect();
      mark.hidden = false;
      mark.style.left = `${100 * x}%`;
      mark.style.top = `${100 * y}%`;
      show(text, box.left + x * box.width, box.top + y * box.height);
    };
    const leave = () => {
      hide();
      mark.hidden = true;
    };
    const point = (event) => {
      const box = figure.getBoundingClientRect();
      const away = ([x, y]) =>
        Math.hypot(box.left + x * box.width - event.clientX, box.top + y * box.height - event.clientY);
      const nearest = hints.reduce((a, b) => (away(a) <= away(b) ? a : b));
      if (away(nearest) > 24) leave();
      else tell(nearest);
    };
    figure.addEventListener("pointermove", point);
    figure.addEventListener("pointerdown", point);
    figure.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());

    let place = -1; // of the keyboard's point
    figure.tabIndex = 0;
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", `Figure of ${hints.length} points, which the arrow keys go through`);
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      place = (Math.max(place + step, place < 0 ? 0 : -1) + hints.length) % hints.length;
      tell(hints[place]);
    });
    figure.addEventListener("blur", leave);
  }

  for (const link of document.querySelectorAll("[data-tip]")) {
    const tell = () => {
      const box = link.getClientRects()[0];
      show(link.dataset.tip, box.left + box.width / 2, box.top);
    };
    link.addEventListener("pointerenter", tell);
    link.addEventListener("focus", tell);
    link.addEventListener("pointerleave", hide);
    link.addEventListener("blur", hide);
  }

  const code = document.querySelectorAll("details.hide");
  const run = document.querySelector("details.run");
  if (run && code.length) {
    const button = Object.assign(document.createElement("button"), { className: "all-code", textContent: "Show all code" });
    button.addEventListener("click", () => {
      const open = ![...code].some((cell) => cell.open);
      code.forEach((cell) => (cell.open = open));
      button.textContent = open ? "Hide all code" : "Show all code";
    });
    run.after(button);
  }
});
