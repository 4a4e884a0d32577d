/* Before anything is drawn: the theme that was chosen last, else that of the system. */
(function () {
  "use strict";
  try {
    var chosen = localStorage.getItem("report-theme");
    if (chosen) document.documentElement.dataset.theme = chosen;
  } catch (error) {
    /* No storage for files in this browser: the system's theme it is. */
  }
})();
