// Formats values for display. Dates stay in ISO 8601, which is unambiguous in every country.

const whole = new Intl.NumberFormat("en");
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const SPANS = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

export const number = (value) => whole.format(value);

export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** "1997-04-24 14:36"; either part may be missing. */
export function dateTime(date, time) {
  return [date, time?.slice(0, 5)].filter(Boolean).join(" ");
}

/** "3 hours ago" of an ISO 8601 date and time. */
export function ago(iso, now) {
  const seconds = (new Date(iso) - now) / 1000;
  const [unit, length] = SPANS.find(([, length]) => Math.abs(seconds) >= length) ?? [];
  return unit ? relative.format(Math.trunc(seconds / length), unit) : "just now";
}

export function bytes(value) {
  if (value < 1e6) return `${Math.ceil(value / 1e3)} kB`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(2)} GB`;
}

/** "2 min 5 s" of seconds. */
export function duration(seconds) {
  const rounded = Math.max(1, Math.round(seconds));
  if (rounded < 60) return `${rounded} s`;
  const minutes = Math.floor(rounded / 60);
  return minutes < 60 ? `${minutes} min ${rounded % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A number with at most two decimals, a small one with three significant digits. */
export const decimal = (value) => String(Number(Math.abs(value) < 1 ? value.toPrecision(3) : value.toFixed(2)));

/** "Tarou Yamada (山田 太郎)" from the files of the study, or a placeholder for a missing name. */
export const patientName = (study) => study.patientDisplayName || "No name";

const AGE_UNITS = { D: "day", W: "week", M: "month", Y: "year" };

/** "34 years" of PatientAge (PS3.5 6.2, AS; some devices write 000Y), else from the birth date to the study date; or null. */
export function patientAge({ patientAge: age, patientBirthDate: born, studyDate: day }) {
  const [, value, unit] = /^(\d{3})([DWMY])$/.exec(age ?? "") ?? [];
  if (Number(value) > 0) return count(Number(value), AGE_UNITS[unit]);
  if (!born || !day || day < born) return null;
  const years = Number(day.slice(0, 4)) - Number(born.slice(0, 4)) - (day.slice(5) < born.slice(5) ? 1 : 0);
  return years > 0 ? count(years, "year") : null;
}

/** "P1 · born 1970-01-31 · 34 years · male" from the values that are present. */
export function patientDetails(study) {
  const sex = { M: "male", F: "female", O: "other" }[study.patientSex] ?? study.patientSex;
  const born = study.patientBirthDate && `born ${study.patientBirthDate}`;
  return [study.patient.patientID || "no ID", born, patientAge(study), sex].filter(Boolean).join(" · ");
}

/** The lossy compression of an image. A ratio of 1 or less counts as unknown: some devices write 0. */
export function describeLoss({ lossyImageCompressionRatio: ratio }) {
  return ratio > 1 ? `Lossy compression ${decimal(ratio)}:1` : "Lossy compression";
}

/** "3 AX T2" of a series. */
export function seriesTitle({ seriesNumber, seriesDescription }) {
  const name = seriesNumber === null ? "Series" : `Series ${seriesNumber}`;
  return seriesDescription ? `${seriesNumber ?? ""} ${seriesDescription}`.trim() : name;
}

/** "Location 12.5 mm · 3 mm thick" of a slice, or null. */
export function describePlace({ sliceLocation: location, sliceThickness: thickness }) {
  const parts = [location !== null && `Location ${decimal(location)} mm`, thickness > 0 && `${decimal(thickness)} mm thick`];
  return parts.filter(Boolean).join(" · ") || null;
}
