// What stands around a picture: patient, series, window, size, and the directions of the patient.
import { lettersOf, oppositeOf } from "./client/geometry.js";
import { el } from "./dom.js";
import { decimal, describeLoss, describePlace, number, patientName, seriesTitle } from "./format.js";
import { describeWindow } from "./windows.js";

export class Corners {
  #viewport;
  #patient = el("div", { class: "corner top-left corner-patient" });
  #series = el("div", { class: "corner top-right corner-series" });
  #window = el("div", { class: "corner bottom-left corner-window" });
  #note = el("p", { class: "corner note", hidden: true }, "Measurements: not for diagnosis");
  #size = el("div", { class: "corner bottom-right corner-size" });
  #letters = ["left", "right", "up", "down"].map((side) => el("span", { class: `letter ${side}`, "aria-hidden": "true" }));

  constructor(viewport) {
    this.#viewport = viewport;
    this.elements = [this.#patient, this.#series, this.#window, this.#note, this.#size, ...this.#letters];
    viewport.addEventListener("shown", () => this.write());
  }

  /** Write what belongs to the picture that is seen, or to the object that has none. */
  write() {
    const { study, series, stack, shown, window } = this.#viewport;
    const place = shown?.place ?? this.#viewport.place;
    if (!place || !study) {
      for (const corner of [this.#patient, this.#series, this.#window, this.#size, ...this.#letters]) corner.replaceChildren();
      this.#note.hidden = true;
      return;
    }
    const { instance } = place;
    const prior = this.#viewport.isPrior ? `Earlier study ${study.studyDate ?? ""}` : null;
    fill(this.#patient, patientName(study), study.patient.patientID, prior ?? study.studyDate);
    const order = instance.instanceNumber === null ? null : `Instance ${instance.instanceNumber}`;
    const counted = shown && stack.length > 1 ? `${number(shown.position + 1)} / ${number(stack.length)}` : null;
    fill(this.#series, seriesTitle(series), series.modality, describePlace(instance), this.#viewport.isAlone ? null : counted, order);
    fill(this.#window, shown ? describeWindow(window, instance) : instance.sopClassName);
    const loss = shown?.isLossy ? describeLoss(instance) : null;
    fill(this.#size, loss, shown ? `${instance.columns} × ${instance.rows}` : null);
    this.#note.hidden = !this.#viewport.drawing.hasAny;
  }

  /** Update what follows the view: directions, zoom. */
  turn() {
    const { view, shown } = this.#viewport;
    const right = shown ? direction(shown.place.instance, view.directionOf(1, 0)) : "";
    const down = shown ? direction(shown.place.instance, view.directionOf(0, 1)) : "";
    const texts = [oppositeOf(right), right, oppositeOf(down), down];
    this.#letters.forEach((letter, i) => (letter.textContent = texts[i]));
    this.#note.hidden = !this.#viewport.drawing.hasAny;
    this.#size.dataset.zoom = shown && !view.isFit ? `${decimal(view.scale * 100)} %` : "";
  }
}

const fill = (corner, ...texts) => corner.replaceChildren(...texts.filter(Boolean).map((text) => el("span", {}, text)));

// Letters of a direction on the picture, from the geometry or else from PatientOrientation (PS3.3 C.7.6.1.1.1).
function direction({ imageOrientationPatient: axes, patientOrientation }, [across, down]) {
  if (axes) return lettersOf([0, 1, 2].map((axis) => across * axes[axis] + down * axes[axis + 3]));
  const [row, column] = patientOrientation ?? [];
  const [letters, share] = Math.abs(across) > 0.5 ? [row, across] : [column, down];
  if (!letters || letters.length > 3) return "";
  return share > 0 ? letters : oppositeOf(letters);
}
