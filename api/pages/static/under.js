// What lies under the pointer on a plane, in numbers, beside the pointer. Without one, rows are listed instead.

const NEAR = 10; // pixels

/** The nearest of points, in units that are drawn, to a place; none where the nearest is too far. */
export const nearest = ({ x, y }, place, unit) => {
  let found = null;
  let least = NEAR * NEAR;
  for (let i = 0; i < x.length; i += 1) {
    const across = (x[i] - place.x) / unit.x;
    const up = (y[i] - place.y) / unit.y;
    const far = across * across + up * up;
    if (far < least) [found, least] = [i, far];
  }
  return found;
};

/**
 * From now on says beside the pointer what `told` finds under it.
 * told: words for a place, given how much of each axis a pixel is; nothing where there is nothing.
 */
export const under = (plot, told) => {
  const tip = Object.assign(document.createElement("p"), { className: "tip", hidden: true });
  tip.setAttribute("aria-hidden", "true");
  plot.parentElement.append(tip);
  let waiting = false;

  const show = (event) => {
    const { xaxis, yaxis } = plot._fullLayout ?? {};
    const area = plot.querySelector(".nsewdrag")?.getBoundingClientRect();
    if (!xaxis || !area?.width) return;
    const unit = { x: (xaxis.range[1] - xaxis.range[0]) / area.width, y: (yaxis.range[1] - yaxis.range[0]) / area.height };
    const place = {
      x: xaxis.range[0] + (event.clientX - area.left) * unit.x,
      y: yaxis.range[1] - (event.clientY - area.top) * unit.y,
    };
    const inside = event.clientX >= area.left && event.clientX <= area.right && event.clientY >= area.top && event.clientY <= area.bottom;
    const words = inside && !event.buttons ? told(place, unit) : null;
    tip.hidden = !words;
    if (!words) return;
    tip.textContent = words;
    const around = plot.parentElement.getBoundingClientRect();
    const left = event.clientX - around.left;
    const room = left > around.width / 2;
    Object.assign(tip.style, {
      top: `${event.clientY - around.top + 14}px`,
      left: room ? "auto" : `${left + 14}px`,
      right: room ? `${around.width - left + 14}px` : "auto",
    });
  };

  plot.addEventListener("mousemove", (event) => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      show(event);
    });
  });
  plot.addEventListener("mouseleave", () => (tip.hidden = true));
};
