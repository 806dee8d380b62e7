// The exponential moving average without the bias of its beginning, as analysis/shaping.py has it: a
// value that is d steps back weighs weight ** (d / unit).

// How many steps the values of a curve are apart: the median of neighbours.
export function usualDistance({ steps, count, entry }) {
  const { first, last } = steps;
  const found = [];
  if (entry.level) {
    for (let i = 0; i < first.length; i++)
      if (last[i] > first[i]) found.push(Math.max(1, (last[i] - first[i]) / (count[i] - 1)));
  } else {
    for (let i = 1; i < first.length; i++) if (first[i] > first[i - 1]) found.push(first[i] - first[i - 1]);
  }
  found.sort((a, b) => a - b);
  const middle = found.length >> 1;
  return found.length % 2 ? found[middle] : found.length ? (found[middle - 1] + found[middle]) / 2 : 0;
}

// Of curves in one chart, all are smoothed over the same number of steps: those of the closest one.
export function unitOf(curves) {
  return Math.min(...curves.map((curve) => curve.distance || Infinity));
}

// The weighted sums of values and of weights up to each bucket. The values of a bucket are taken to
// be evenly apart, each as large as their mean. A window goes on where the whole curve was (`base`).
export function sums({ steps, count, mean, base }, weight, unit) {
  const length = mean.length;
  const [above, below] = [new Float64Array(length), new Float64Array(length)];
  const scale = mean.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1; // no sum overflows
  const far = (distance) => weight ** (distance / unit);
  let { sum, total, at } = before(base, steps.first[0], weight, unit);
  sum /= scale;
  for (let i = 0; i < length; i++) {
    const decay = total ? far(steps.last[i] - at) : 0;
    const many = count ? count[i] : 1;
    const apart = many > 1 ? far((steps.last[i] - steps.first[i]) / (many - 1)) : 1;
    const share = apart < 1 ? (1 - apart ** many) / (1 - apart) : many;
    above[i] = sum = sum * decay + (mean[i] / scale) * share;
    below[i] = total = total * decay + share;
    at = steps.last[i];
  }
  return { above, below, scale };
}

function before(base, first, weight, unit) {
  let end = base ? base.steps.last.findIndex((step) => step >= first) : 0;
  if (end < 0) end = base.mean.length;
  if (!end) return { sum: 0, total: 0, at: 0 };
  const { above, below, scale } = base.smooth(weight, unit);
  return { sum: above[end - 1] * scale, total: below[end - 1], at: base.steps.last[end - 1] };
}

// A view's values, smoothed over their steps whatever its axis is.
export function smoothed(view, weight, unit) {
  const { above, below, scale } = view.curve.smooth(weight, unit);
  const found = above.map((sum, i) => Math.max(-1, Math.min(1, sum / below[i])) * scale);
  return view.order ? Float64Array.from(view.order, (i) => found[i]) : found;
}
