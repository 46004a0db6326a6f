// A study with its series and the patient's earlier studies: by id, StudyInstanceUID or accession number.
import { graphql } from "./api.js";
import { hashOf } from "./place.js";
import { SERIES_FIELDS } from "./strip.js";

const STUDY = `query StudyPage($id: ID!) {
  viewer { canUpload canDelete canDownload }
  node(id: $id) {
    ... on Study {
      id studyInstanceUID studyDate studyTime studyDescription accessionNumber institutionName
      patientDisplayName patientBirthDate patientSex patientAge patient { patientID hasConflictingDemographics }
      series { ${SERIES_FIELDS} }
      priors(first: 50) { id studyDate studyDescription modalitiesInStudy }
    }
  }
}`;

const BY_UID = `query StudyByUID($uid: String!) {
  study(studyInstanceUID: $uid) { id otherStudiesWithThisUID { id } }
}`;
const BY_ACCESSION = `query StudiesByAccession($number: String!) {
  studies(first: 2, filter: { accessionNumber: $number }) { nodes { id } }
}`;
const NONE = "There is no such study. It may have been deleted.";

/** Read a study. @returns {study, caller}: what it is, and what the caller may do with it */
export async function readStudy(id) {
  const { node, viewer } = await graphql(STUDY, { id });
  if (!node?.id) throw new Error(NONE);
  return { study: node, caller: viewer };
}

/**
 * The place with the API's `id` of its study. A RIS knows the StudyInstanceUID or the accession number, and
 * links by it.
 * @returns null where several studies have this accession number: the list shows them
 */
export async function withId(place) {
  const { StudyInstanceUID, AccessionNumber, ...rest } = place;
  const uid = StudyInstanceUID ?? (/^[0-9.]+$/.test(place.study ?? "") ? place.study : null);
  if (uid) {
    const { study: found } = await graphql(BY_UID, { uid });
    if (!found) throw new Error(NONE);
    if (found.otherStudiesWithThisUID.length) {
      throw new Error("Several patients have a study with this UID. Open it from the list.");
    }
    return { ...rest, study: found.id };
  }
  if (!AccessionNumber) return place;
  const { studies } = await graphql(BY_ACCESSION, { number: AccessionNumber });
  if (studies.nodes.length === 1) return { ...rest, study: studies.nodes[0].id };
  if (studies.nodes.length === 0) throw new Error(NONE);
  location.replace(hashOf({ q: AccessionNumber })); // The list shows all of them.
  return null;
}
