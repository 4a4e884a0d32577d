/* The viewer, the sorting of tables and the theme. A classic script: pages opened from disk may
   not load modules. */
(function () {
  "use strict";

  var PICTURES = [
    ["image", "Image", ".jpg"],
    ["truth", "Truth", ".png"],
    ["prediction", "Prediction", ".png"],
    ["errors", "Errors", ".png"]
  ];
  var SIDES = ["left", "right"];
  var report = JSON.parse(element("report-data").textContent);
  var scenes = report.scenes;
  var state = { scene: -1, left: "image", right: "errors", swipe: 0.5, order: [] };
  var viewer = null;
  var frame = element("frame");

  function element(id) {
    return document.getElementById(id);
  }

  function make(tag, attributes, text) {
    var made = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) {
      made.setAttribute(name, attributes[name]);
    });
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function metric(value) {
    return value === null ? "\u2013" : value.toFixed(3);
  }

  /* ---- the list of scenes ---- */

  var ORDERS = {
    wrong: function (a, b) { return b.missed + b.false - a.missed - a.false; },
    worst: function (a, b) { return a.iou - b.iou; },
    best: function (a, b) { return b.iou - a.iou; },
    missed: function (a, b) { return b.missed - a.missed; },
    false: function (a, b) { return b.false - a.false; },
    name: function (a, b) { return a.name.localeCompare(b.name, undefined, { numeric: true }); }
  };

  function order() {
    var compare = ORDERS[element("order").value];
    state.order = scenes.map(function (_, number) { return number; });
    state.order.sort(function (a, b) {
      /* Without a valid pixel a scene has no metrics, and comes last in any order but by name. */
      if (element("order").value !== "name" && scenes[a].empty !== scenes[b].empty) {
        return scenes[a].empty ? 1 : -1;
      }
      return compare(scenes[a], scenes[b]) || ORDERS.name(scenes[a], scenes[b]);
    });
    var rail = element("rail");
    rail.textContent = "";
    state.order.forEach(function (number) {
      var scene = scenes[number];
      var button = make("button", { type: "button", "data-scene": number });
      button.appendChild(make("img", { src: scene.folder + "/thumb.jpg", alt: "", loading: "lazy" }));
      button.appendChild(make("span", { "class": "name", title: scene.name }, scene.name));
      button.appendChild(make("span", {}, scene.empty ? "\u2013" : metric(scene.iou)));
      var meter = make("span", { "class": "meter", "aria-hidden": "true" });
      meter.appendChild(make("i", { style: "width:" + 100 * (scene.empty ? 0 : scene.iou) + "%" }));
      button.appendChild(meter);
      button.addEventListener("click", function () { show(number, false); });
      var item = make("li");
      item.appendChild(button);
      rail.appendChild(item);
    });
    mark();
  }

  function mark() {
    element("rail").querySelectorAll("button").forEach(function (button) {
      var current = Number(button.dataset.scene) === state.scene;
      button.setAttribute("aria-current", String(current));
      if (current) {
        var rail = element("rail");
        var top = button.offsetTop - rail.offsetTop;
        if (top < rail.scrollTop || top + button.offsetHeight > rail.scrollTop + rail.clientHeight) {
          rail.scrollTop = top - rail.clientHeight / 3;
        }
      }
    });
  }

  function step(by) {
    var at = state.order.indexOf(state.scene) + by;
    show(state.order[(at + state.order.length) % state.order.length], false);
  }

  /* ---- a scene in the viewer ---- */

  function source(scene, picture) {
    var last = scene.levels - 1;
    return {
      width: scene.width,
      height: scene.height,
      tileSize: report.tile,
      tileOverlap: 0,
      minLevel: 0,
      maxLevel: last,
      getTileUrl: function (level, column, row) {
        return scene.folder + "/" + picture[0] + "/" + (last - level) + "/" + column + "_" + row + picture[2];
      }
    };
  }

  function picturesOf(scene) {
    return PICTURES.filter(function (picture) { return scene.imagery || picture[0] !== "image"; });
  }

  function items(side) {
    /* Those of the left lie below those of the right, in the order of the pictures. */
    var names = picturesOf(scenes[state.scene]).map(function (picture) { return picture[0]; });
    var first = side === "left" ? 0 : names.length;
    var found = {};
    names.forEach(function (name, number) {
      found[name] = viewer.world.getItemAt(first + number);
    });
    return found;
  }

  function show(number, focus) {
    if (number < 0 || number >= scenes.length) return;
    var scene = scenes[number];
    var same = number === state.scene;
    state.scene = number;
    element("scene-name").textContent = scene.name;
    describe(scene);
    mark();
    SIDES.forEach(choosePicture);
    if (!same && viewer) {
      var sources = [];
      SIDES.forEach(function () {
        picturesOf(scene).forEach(function (picture) {
          sources.push({ tileSource: source(scene, picture), opacity: 0, x: 0, y: 0, width: 1 });
        });
      });
      frame.dataset.ready = "";
      viewer.open(sources);
    }
    remember(number);
    if (focus) {
      element("viewer").scrollIntoView({ block: "start" });
      if (viewer) viewer.canvas.focus({ preventScroll: true });
    }
  }

  function describe(scene) {
    var metrics = element("scene-metrics");
    metrics.textContent = "";
    if (scene.empty) {
      metrics.textContent = "no valid pixel";
    } else {
      [["IoU", "iou"], ["precision", "precision"], ["recall", "recall"]].forEach(function (pair) {
        var part = make("span", {}, pair[0] + " ");
        part.appendChild(make("b", {}, metric(scene[pair[1]])));
        metrics.appendChild(part);
      });
    }
    var size = scene.height.toLocaleString("en") + " \u00d7 " + scene.width.toLocaleString("en") + " px";
    var ground = scene.gsd ? ", " + scene.gsd.toPrecision(3) + " m a pixel" : "";
    metrics.appendChild(make("span", {}, size + ground));
    element("scene-note").textContent = scene.note || "";
  }

  function remember(number) {
    try {
      history.replaceState(null, "", "#scene-" + (number + 1));
    } catch (error) {
      /* Some browsers refuse this for files; the page works without. */
    }
  }

  /* ---- pictures and the swipe ---- */

  function buildPictures(side) {
    PICTURES.forEach(function (picture, number) {
      var label = make("label", { title: (side === "left" ? "Shift + " : "") + (number + 1) });
      var input = make("input", { type: "radio", name: side, value: picture[0] });
      input.addEventListener("change", function () { choose(side, picture[0]); });
      label.appendChild(input);
      label.appendChild(make("span", {}, picture[1]));
      element(side + "-picture").appendChild(label);
    });
  }

  function choosePicture(side) {
    var scene = scenes[state.scene];
    var shown = state[side] === "image" && !scene.imagery ? "truth" : state[side];
    element(side + "-picture").querySelectorAll("input").forEach(function (input) {
      input.checked = input.value === shown;
      input.disabled = input.value === "image" && !scene.imagery;
    });
    PICTURES.forEach(function (picture) {
      if (picture[0] === shown) element(side + "-name").textContent = picture[1];
    });
    return shown;
  }

  function choose(side, picture) {
    if (picture === "image" && !scenes[state.scene].imagery) return;
    state[side] = picture;
    draw();
  }

  function draw() {
    if (!viewer || !viewer.world.getItemCount() || frame.dataset.ready !== "yes") return;
    var tint = Number(element("tint").value) / 100;
    var beneath = element("beneath").checked;
    SIDES.forEach(function (side) {
      var shown = choosePicture(side);
      var own = items(side);
      var empty = clip(side, own);
      Object.keys(own).forEach(function (name) {
        var opacity = 0;
        if (name === shown) opacity = name === "image" ? 1 : own.image && beneath ? tint : 1;
        else if (name === "image" && beneath) opacity = 1;
        own[name].setOpacity(empty ? 0 : opacity);
      });
    });
    place();
    scaleBar();
  }

  function clip(side, own) {
    var scene = scenes[state.scene];
    var any = own.truth;
    var at = viewer.viewport.viewerElementToViewportCoordinates(
      new OpenSeadragon.Point(state.swipe * frame.clientWidth, 0)
    );
    var x = any.viewportToImageCoordinates(at, true).x;
    x = Math.max(0, Math.min(scene.width, x));
    var from = side === "left" ? 0 : x;
    var width = side === "left" ? x : scene.width - x;
    Object.keys(own).forEach(function (name) {
      own[name].setClip(new OpenSeadragon.Rect(from, 0, Math.max(width, 1e-6), scene.height));
    });
    return width <= 0;
  }

  function swipe(share) {
    state.swipe = Math.max(0, Math.min(1, share));
    draw();
  }

  function place() {
    var divider = element("divider");
    divider.style.left = 100 * state.swipe + "%";
    divider.setAttribute("aria-valuenow", String(Math.round(100 * state.swipe)));
  }

  function scaleBar() {
    var scene = scenes[state.scene];
    var item = viewer.world.getItemAt(0);
    var zoom = item.viewportToImageZoom(viewer.viewport.getZoom(true));
    var unit = (scene.gsd || 1) / zoom;
    var most = 140 * unit;
    var base = Math.pow(10, Math.floor(Math.log10(most)));
    var length = [5, 2, 1].map(function (times) { return times * base; })
      .find(function (value) { return value <= most; });
    var bar = element("scale");
    bar.querySelector("i").style.width = length / unit + "px";
    var words = Number(length.toPrecision(1)).toLocaleString("en") + (scene.gsd ? " m" : " px");
    if (scene.gsd && length >= 1000) words = length / 1000 + " km";
    bar.querySelector("span").textContent = words;
    /* Pixels are what is looked at from four times their size on. */
    var smooth = zoom * (window.devicePixelRatio || 1) < 4;
    if (viewer.smooth !== smooth) {
      viewer.smooth = smooth;
      viewer.drawer.setImageSmoothingEnabled(smooth);
    }
  }

  /* ---- the viewer itself ---- */

  function build() {
    /* It warns of every tile that arrives after its scene was left, which is no fault. */
    OpenSeadragon.console = Object.assign(Object.create(window.console), { warn: function () {} });
    viewer = OpenSeadragon({
      element: element("canvas"),
      drawer: "canvas",
      showNavigationControl: false,
      keyboardNavEnabled: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      minZoomImageRatio: 0.7,
      maxZoomPixelRatio: 16,
      visibilityRatio: 0.3,
      animationTime: reducedMotion() ? 0 : 0.5,
      imageLoaderLimit: 8,
      maxImageCacheCount: 400,
      crossOriginPolicy: false
    });
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-label", "Scene, to be moved and zoomed; the question mark lists the keys");
    viewer.addHandler("open", function () {
      frame.dataset.ready = "yes";
      viewer.viewport.goHome(true);
      draw();
    });
    viewer.addHandler("viewport-change", draw);
    viewer.addHandler("resize", function () { window.setTimeout(draw, 0); });
    viewer.addHandler("canvas-scroll", function (event) {
      var pointer = event.originalEvent;
      if (frame.contains(document.activeElement) || pointer.ctrlKey || document.fullscreenElement) return;
      /* The page is being scrolled, and the viewer lies in the way. */
      event.preventDefaultAction = true;
      event.preventDefault = false;
      hint();
    });
    element("canvas").addEventListener("pointermove", function (event) {
      if (frame.dataset.ready !== "yes") return;
      var box = frame.getBoundingClientRect();
      var at = viewer.world.getItemAt(0).viewerElementToImageCoordinates(
        new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top)
      );
      var scene = scenes[state.scene];
      var inside = at.x >= 0 && at.y >= 0 && at.x < scene.width && at.y < scene.height;
      element("place").textContent = inside
        ? "row " + Math.floor(at.y) + ", column " + Math.floor(at.x) : "";
    });
  }

  var hinting = 0;
  function hint() {
    element("hint").classList.add("shown");
    window.clearTimeout(hinting);
    hinting = window.setTimeout(function () { element("hint").classList.remove("shown"); }, 1200);
  }

  function reducedMotion() {
    return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  function pan(x, y) {
    var bounds = viewer.viewport.getBounds();
    viewer.viewport.panBy(new OpenSeadragon.Point(x * bounds.width, y * bounds.height));
    viewer.viewport.applyConstraints();
  }

  function zoom(by) {
    viewer.viewport.zoomBy(by);
    viewer.viewport.applyConstraints();
  }

  function fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (frame.requestFullscreen) frame.requestFullscreen();
  }

  /* ---- keys ---- */

  var KEYS = {
    ArrowLeft: function () { pan(-0.15, 0); },
    ArrowRight: function () { pan(0.15, 0); },
    ArrowUp: function () { pan(0, -0.15); },
    ArrowDown: function () { pan(0, 0.15); },
    "+": function () { zoom(1.5); },
    "=": function () { zoom(1.5); },
    "-": function () { zoom(1 / 1.5); },
    "_": function () { zoom(1 / 1.5); },
    "0": function () { viewer.viewport.goHome(); },
    "[": function () { swipe(state.swipe - 0.05); },
    "]": function () { swipe(state.swipe + 0.05); },
    ",": function () { swipe(state.swipe - 0.05); },
    ".": function () { swipe(state.swipe + 0.05); },
    "{": function () { swipe(0); },
    "}": function () { swipe(1); },
    "<": function () { swipe(0); },
    ">": function () { swipe(1); },
    n: function () { step(1); },
    p: function () { step(-1); },
    b: function () { element("beneath").click(); },
    f: fullScreen,
    "?": function () { element("keys").showModal(); }
  };

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
    var arrow = event.key.indexOf("Arrow") === 0;
    var input = event.target.tagName === "INPUT";
    if (arrow && (input || event.target.closest(".rail"))) return;
    if (event.target === element("divider") && onDividerKey(event)) return;
    /* By its place on the keyboard: what Shift makes of a digit differs between countries. */
    var digit = /^(?:Digit|Numpad)([1-4])$/.exec(event.code);
    var act = digit
      ? function () { choose(event.shiftKey ? "left" : "right", PICTURES[digit[1] - 1][0]); }
      : KEYS[event.key] || KEYS[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  function onDividerKey(event) {
    var to = {
      ArrowLeft: state.swipe - 0.02, ArrowRight: state.swipe + 0.02,
      ArrowDown: state.swipe - 0.02, ArrowUp: state.swipe + 0.02, Home: 0, End: 1
    }[event.key];
    if (to === undefined) return false;
    event.preventDefault();
    event.stopPropagation();
    swipe(to);
    return true;
  }

  function bind() {
    element("viewer").addEventListener("keydown", onKey, true);
    var divider = element("divider");
    divider.addEventListener("pointerdown", function (event) {
      divider.setPointerCapture(event.pointerId);
      divider.focus({ preventScroll: true });
      event.preventDefault();
    });
    divider.addEventListener("pointermove", function (event) {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      var box = frame.getBoundingClientRect();
      swipe((event.clientX - box.left) / box.width);
    });
    element("tint").addEventListener("input", draw);
    element("beneath").addEventListener("change", draw);
    element("order").addEventListener("change", order);
    element("previous").addEventListener("click", function () { step(-1); });
    element("next").addEventListener("click", function () { step(1); });
    element("help").addEventListener("click", function () { element("keys").showModal(); });
    element("zoom-in").addEventListener("click", function () { zoom(1.5); });
    element("zoom-out").addEventListener("click", function () { zoom(1 / 1.5); });
    element("fit").addEventListener("click", function () { viewer.viewport.goHome(); });
    element("full").addEventListener("click", fullScreen);
    document.addEventListener("click", function (event) {
      var link = event.target.closest ? event.target.closest("a[href^='#scene-']") : null;
      if (!link) return;
      event.preventDefault();
      show(Number(link.getAttribute("href").slice(7)) - 1, true);
    });
    window.addEventListener("hashchange", function () {
      var asked = fromAddress();
      if (asked !== null) show(asked, true);
    });
  }

  function fromAddress() {
    var match = /^#scene-(\d+)$/.exec(location.hash);
    return match && scenes[match[1] - 1] ? Number(match[1]) - 1 : null;
  }

  /* ---- tables and theme ---- */

  function sortable(table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        var body = table.tBodies[0];
        var rows = Array.from(body.rows);
        rows.sort(function (a, b) {
          var one = value(a.cells[column]);
          var other = value(b.cells[column]);
          var sign = typeof one === "number" && typeof other === "number"
            ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
          return down ? -sign : sign;
        });
        rows.forEach(function (row) { body.appendChild(row); });
      });
    });
  }

  function value(cell) {
    var text = cell.textContent.trim();
    var number = Number(text.replace(/,/g, "").replace("%", ""));
    return text !== "" && !Number.isNaN(number) ? number : text;
  }

  function switchTheme() {
    var root = document.documentElement;
    var dark = root.dataset.theme
      ? root.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("report-theme", root.dataset.theme);
    } catch (error) {
      /* The choice lasts as long as the page. */
    }
  }

  element("theme").addEventListener("click", switchTheme);
  document.querySelectorAll("table.sortable").forEach(sortable);
  SIDES.forEach(buildPictures);
  bind();
  if (scenes.length) {
    build();
    order();
    place();
    var asked = fromAddress();
    show(asked === null ? state.order[0] : asked, false);
  }
})();
