// Moving about in a chart: drag zooms, shift-drag pans, ctrl and wheel zooms, two fingers both.

// move(first, last): show this window. u: the chart.
export function gestures(u, move, reset) {
  const { over } = u;
  const log = () => u.scales.x.distr === 3;
  const to = (x) => (log() ? Math.log(x) : x);
  const back = (x) => (log() ? Math.exp(x) : x);
  const ends = () => [to(u.scales.x.min), to(u.scales.x.max)];
  const show = (first, last) => move(back(first), back(last));

  over.addEventListener("dblclick", reset);
  over.addEventListener(
    "mousedown",
    (event) => {
      if (!event.shiftKey || event.button) return;
      event.stopImmediatePropagation(); // uPlot would select
      event.preventDefault();
      const [first, last] = ends();
      const perPixel = (last - first) / over.clientWidth;
      const drag = (now) => {
        const shift = (event.clientX - now.clientX) * perPixel;
        show(first + shift, last + shift);
      };
      const drop = () => {
        window.removeEventListener("mousemove", drag);
        window.removeEventListener("mouseup", drop);
      };
      window.addEventListener("mousemove", drag);
      window.addEventListener("mouseup", drop);
    },
    { capture: true },
  );
  over.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const [first, last] = ends();
      const centre = first + ((last - first) * event.offsetX) / over.clientWidth;
      const factor = Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200)));
      show(centre - (centre - first) * factor, centre + (last - centre) * factor);
    },
    { passive: false },
  );
  touch(over, ends, show);
}

function touch(over, ends, show) {
  let begun = null;
  const places = (event) =>
    [...event.touches].map((one) => one.clientX - over.getBoundingClientRect().left).sort((a, b) => a - b);
  over.addEventListener(
    "touchstart",
    (event) => {
      begun = event.touches.length === 2 ? { fingers: places(event), ends: ends() } : null;
    },
    { passive: true },
  );
  over.addEventListener(
    "touchmove",
    (event) => {
      if (!begun || event.touches.length !== 2) return;
      event.preventDefault();
      const [first, last] = begun.ends;
      const perPixel = (last - first) / over.clientWidth;
      const [left, right] = begun.fingers.map((x) => first + x * perPixel);
      const [nowLeft, nowRight] = places(event);
      const scale = (right - left) / Math.max(10, nowRight - nowLeft);
      const begin = left - nowLeft * scale;
      show(begin, begin + over.clientWidth * scale);
    },
    { passive: false },
  );
}
