// Mouse, touch and wheel on the stage of a viewport.
import { KINDS } from "./measurements.js";
import { dragged, hasWindow, startWindow } from "./windows.js";

const PIXELS_PER_IMAGE = 12; // Dragging so far goes one image on.
const WHEEL_STEP = 60; // Trackpads send many small steps, a mouse wheel 100 or 120 at once.
const PIXELS_PER_ZOOM = 200; // Dragging so far makes the picture e times as large.
const FINGER = 6; // CSS pixels that a finger moves before it drags: a second one may follow for a pinch.

const chosenTool = () => document.querySelector('input[name="tool"]:checked').value;

/** Handle the gestures of a viewport. `onMove` is called before the position changes. */
export function listenToStage(viewport, { onMove }) {
  const { stage, view } = viewport;
  const pointers = new Map(); // Pointer -> its point on the stage.
  let drag = null; // {move, end} of the pointer that came first.
  let turned = 0;

  stage.addEventListener("wheel", (event) => {
    if (!viewport.place) return;
    event.preventDefault();
    const amount = event.deltaMode === 0 ? event.deltaY : event.deltaY * 40;
    if (event.ctrlKey) return zoom(Math.exp(-amount / PIXELS_PER_ZOOM), pointOf(event)); // Trackpads pinch so.
    onMove();
    turned += amount;
    const steps = Math.trunc(turned / WHEEL_STEP);
    turned -= steps * WHEEL_STEP;
    if (steps) viewport.step(Math.abs(amount) >= WHEEL_STEP ? Math.sign(steps) : steps);
  }, { passive: false });

  stage.addEventListener("pointerdown", (event) => {
    const point = pointOf(event);
    if (!viewport.place || pointers.size > 1) return;
    const remove = event.target.closest(".remove");
    if (remove) return viewport.drawing.removeLast(remove);
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point);
    if (pointers.size === 2) {
      drag?.cancel?.();
      drag = null;
      return;
    }
    const begun = begin(event, point);
    drag = begun && event.pointerType === "touch" ? patient(begun, point) : begun;
    stage.classList.toggle("dragging", drag !== null);
  });

  stage.addEventListener("pointermove", (event) => {
    const point = pointOf(event);
    if (!pointers.has(event.pointerId)) return viewport.drawing.hover(point);
    if (pointers.size === 2) pinch(event.pointerId, point);
    else drag?.move(point);
    pointers.set(event.pointerId, point);
  });

  const end = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (pointers.size === 0) stage.classList.remove("dragging");
    drag?.end?.(pointOf(event));
    drag = null;
  };
  stage.addEventListener("lostpointercapture", end);
  stage.addEventListener("dblclick", (event) => {
    if (event.target.closest(".handle") || KINDS.has(chosenTool())) return;
    if (view.isFit) zoom(1 / view.scale, pointOf(event));
    else changeView(() => view.setScale(null));
  });
  stage.addEventListener("contextmenu", (event) => event.preventDefault()); // The right button zooms.

  function pointOf(event) {
    const { left, top } = stage.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  function changeView(change) {
    change();
    viewport.lay();
    viewport.dispatchEvent(new Event("moved"));
  }

  function zoom(factor, point) {
    changeView(() => view.zoomAt(factor, point));
  }

  // Two fingers: their distance zooms, their middle moves.
  function pinch(moved, to) {
    const before = [...pointers.values()];
    const after = [...pointers].map(([id, point]) => (id === moved ? to : point));
    const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const span = ([a, b]) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    const [from, there] = [middle(before), middle(after)];
    changeView(() => {
      view.zoomAt(span(after) / span(before), from);
      view.move(there[0] - from[0], there[1] - from[1]);
    });
  }

  // A finger begins after a little way: then it is no pinch.
  function patient(begun, start) {
    let isBegun = false;
    return {
      move: (to) => {
        isBegun ||= Math.hypot(to[0] - start[0], to[1] - start[1]) > FINGER;
        if (isBegun) begun.move(to);
      },
      end: (to) => begun.end?.(to),
      cancel: () => begun.end?.(start),
    };
  }

  function begin(event, start) {
    const handle = event.target.closest(".handle");
    if (handle && !viewport.drawing.isUnfinished) return viewport.drawing.beginHandle(handle);
    const byButton = { 1: "pan", 2: "zoom" }[event.button] ?? (event.shiftKey ? "pan" : chosenTool());
    if (KINDS.has(byButton)) return viewport.drawing.begin(byButton, start);
    return { pan, zoom: zoomDrag, scroll, window: windowDrag }[byButton](start);
  }

  function pan(start) {
    let last = start;
    return {
      move: (to) => {
        changeView(() => view.move(to[0] - last[0], to[1] - last[1]));
        last = to;
      },
    };
  }

  function zoomDrag(start) {
    let last = start;
    return {
      move: (to) => {
        zoom(Math.exp((last[1] - to[1]) / PIXELS_PER_ZOOM), start);
        last = to;
      },
    };
  }

  function scroll(start) {
    const from = viewport.position;
    return {
      move: (to) => {
        onMove();
        viewport.goTo(from + Math.round((to[1] - start[1]) / PIXELS_PER_IMAGE));
      },
    };
  }

  function windowDrag(start) {
    const { instance } = viewport.place;
    if (!hasWindow(instance)) return null;
    const from = startWindow(viewport.window, instance);
    let hasMoved = false;
    return {
      move: (to) => {
        hasMoved ||= to[0] !== start[0] || to[1] !== start[1];
        if (hasMoved) viewport.setWindow(dragged(from, to[0] - start[0], to[1] - start[1]), { isDragging: true });
      },
      end: () => hasMoved && viewport.setWindow(viewport.window),
    };
  }
}
