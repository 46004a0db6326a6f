// The strip beside the viewer: the series of the study, and the patient's earlier studies.
import { graphql } from "./api.js";
import { byId, el, notify } from "./dom.js";
import { count, seriesTitle } from "./format.js";
import { hashOf } from "./place.js";
import { thumbnail } from "./thumbnail.js";

export const SERIES_FIELDS = `
  id seriesNumber modality seriesDescription numberOfInstances numberOfFrames
  thumbnail { url(maxSize: 192) }`;

const THUMBNAIL = `query SeriesThumbnail($id: ID!) {
  node(id: $id) { ... on Series { thumbnail { url(maxSize: 192) } } }
}`;

/**
 * Fill the strip.
 * @param study  with `series` and `priors`
 * @param onPrior opens an earlier study beside this one
 */
export function fillStrip(study, onPrior) {
  const series = study.series.map((one) => seriesLink(study, one));
  const priors = study.priors.length ? [el("h2", {}, "Earlier studies"), ...study.priors.map((prior) => priorItem(prior, onPrior))] : [];
  byId("strip").replaceChildren(...series, ...priors);
}

/** Mark the series that the viewports show, and the one in use. */
export function markSeries(active, shown) {
  for (const link of byId("strip").querySelectorAll("[data-series]")) {
    const isActive = link.dataset.series === active;
    if (isActive && link.getAttribute("aria-current") !== "true") link.scrollIntoView({ block: "nearest", inline: "nearest" });
    link.setAttribute("aria-current", String(isActive));
    link.classList.toggle("shown", shown.includes(link.dataset.series));
  }
}

function content(one) {
  const renew = async () => (await graphql(THUMBNAIL, { id: one.id })).node?.thumbnail;
  const amount = one.numberOfFrames ? count(one.numberOfFrames, "image") : count(one.numberOfInstances, "object");
  return [
    thumbnail(one.thumbnail, renew),
    el("span", { class: "title", title: seriesTitle(one) }, seriesTitle(one)),
    el("span", { class: "detail" }, [one.modality, amount].filter(Boolean).join(" · ")),
  ];
}

function seriesLink(study, one) {
  return el("a", { href: hashOf({ study: study.id, series: one.id }), "data-series": one.id }, ...content(one));
}

function priorItem(prior, onPrior) {
  const { id, studyDate, studyDescription, modalitiesInStudy } = prior;
  const series = el("div", { class: "prior-series" });
  const beside = async () => {
    try {
      const open = await onPrior(prior);
      series.replaceChildren(...open.study.series.map((one) =>
        el("button", { type: "button", "data-series": one.id, onclick: () => open.show(one) }, ...content(one))));
      open.mark();
    } catch (error) {
      notify(error.message);
    }
  };
  return el(
    "div",
    { class: "prior-item" },
    el(
      "a",
      { class: "prior", href: hashOf({ study: id }) },
      el("span", { class: "title" }, studyDate),
      el("span", { class: "detail" }, [studyDescription, modalitiesInStudy.join(" ")].filter(Boolean).join(" · ")),
    ),
    el("button", { type: "button", class: "beside", "aria-label": `Show the study of ${studyDate} beside`, onclick: beside }, "Beside"),
    series,
  );
}
