/* Sets the colour scheme that was chosen before, ahead of the first paint. */
"use strict";
try {
  const chosen = localStorage.getItem("emcube-scheme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.scheme = chosen;
} catch { /* storage is closed to this page: the system's scheme it is */ }
