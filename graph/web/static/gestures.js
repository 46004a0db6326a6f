// Mouse, touch and wheel gestures on the stage.
import { byId } from "./dom.js";
import { dragged, hasWindow, startWindow } from "./windows.js";

const PIXELS_PER_IMAGE = 12; // Dragging so far goes one image on.
const WHEEL_STEP = 60; // Trackpads send many small steps, a mouse wheel 100 or 120 at once.

const tool = () => document.querySelector('input[name="tool"]:checked').value;

/** Handle scrolling and dragging on the stage. `onMove` is called before the position changes. */
export function listenToStage(viewer, { onMove, onWindow }) {
  const stage = byId("stage");
  let turned = 0;
  stage.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || !viewer.place) return; // The browser's own zoom.
      event.preventDefault();
      onMove();
      turned += event.deltaMode === 0 ? event.deltaY : event.deltaY * 40;
      const steps = Math.trunc(turned / WHEEL_STEP);
      turned -= steps * WHEEL_STEP;
      if (steps) viewer.step(Math.abs(event.deltaY) >= WHEEL_STEP ? Math.sign(steps) : steps);
    },
    { passive: false },
  );
  stage.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button > 1 || !viewer.place) return;
    const drag = dragOf(event, viewer, { onMove, onWindow });
    if (!drag) return;
    stage.setPointerCapture(event.pointerId);
    stage.classList.add("dragging");
    stage.addEventListener("pointermove", drag);
    const end = () => {
      stage.classList.remove("dragging");
      stage.removeEventListener("pointermove", drag);
      if (tool() === "window") viewer.setWindow(viewer.window);
    };
    stage.addEventListener("lostpointercapture", end, { once: true });
  });
}

// The drag that is in progress.
function dragOf(down, viewer, { onMove, onWindow }) {
  const { clientX, clientY } = down;
  const chosen = down.button === 1 || down.shiftKey ? "pan" : tool();
  if (chosen === "pan") {
    const stage = byId("stage");
    const { scrollLeft, scrollTop } = stage;
    return (event) => stage.scrollTo(scrollLeft + clientX - event.clientX, scrollTop + clientY - event.clientY);
  }
  if (chosen === "scroll") {
    const start = viewer.position;
    return (event) => {
      onMove();
      viewer.goTo(start + Math.round((event.clientY - clientY) / PIXELS_PER_IMAGE));
    };
  }
  const { instance } = viewer.place;
  if (!hasWindow(instance)) return null;
  const start = startWindow(viewer.window, instance);
  return (event) => {
    if (event.clientX === clientX && event.clientY === clientY) return;
    onWindow(dragged(start, event.clientX - clientX, event.clientY - clientY), { isDragging: true });
  };
}
