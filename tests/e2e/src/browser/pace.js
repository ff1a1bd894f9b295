// How evenly a page draws: between start and stop each frame is timed, and each long task that the browser tells of.
'use strict';

globalThis.pace = (() => {
  let began, last, gaps, longest, blocked, running;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) blocked += task.duration;
  }).observe({ type: 'longtask' });

  const frame = (now) => {
    if (!running) return;
    const gap = now - last;
    gaps.push(gap);
    longest = Math.max(longest, gap);
    last = now;
    requestAnimationFrame(frame);
  };

  const start = () => {
    began = last = performance.now();
    [gaps, longest, blocked, running] = [[], 0, 0, true];
    requestAnimationFrame(frame);
  };

  // Milliseconds; `blocked` is in tasks of more than 50 each.
  const stop = () => {
    running = false;
    const sorted = [...gaps].sort((a, b) => a - b);
    const at = (part) => sorted[Math.floor((sorted.length - 1) * part)] || 0;
    return { all: performance.now() - began, frames: gaps.length, half: at(0.5), most: at(0.95), longest, blocked };
  };

  // From a change until the next frame has been drawn with it.
  const drawn = (change) => new Promise((resolve) => {
    const from = performance.now();
    change();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - from)));
  });

  return { start, stop, drawn };
})();
