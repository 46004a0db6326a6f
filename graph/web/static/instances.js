// A series as one stack: all frames of all instances in order, what is known of each, where each lies.
import { graphql, loader } from "./api.js";

const PAGE = 500; // Instances per request, the largest page that the server gives.

const INSTANCES = `query Stack($series: ID!, $first: Int!, $offset: Int!) {
  node(id: $series) {
    ... on Series {
      thumbnail { urlExpiresAt }
      instances(first: $first, offset: $offset) {
        id sopClassName instanceNumber rows columns bitsAllocated photometricInterpretation
        windowCenter windowWidth windows { center width explanation } numberOfFrames
        notRenderableReason pixelSpacing imagerPixelSpacing pixelAspectRatio rescaleType
        imagePositionPatient imageOrientationPatient patientOrientation frameOfReferenceUID
        sliceLocation sliceThickness frameTime recommendedDisplayFrameRate
        lossyImageCompression lossyImageCompressionRatio frame { path }
      }
    }
  }
}`;

const PLANES = `query Planes($id: ID!) {
  node(id: $id) { ... on Instance { frames { index position orientation } } }
}`;

/**
 * One frame of a stack.
 * @typedef {{instance: object, frameIndex: number}} Place What can't be shown has one place too.
 */

/** Query a series. @param seriesId The API's `id`: two patients' series may share one SeriesInstanceUID. */
export async function readInstances(seriesId) {
  const instances = [];
  for (let offset = 0; ; offset += PAGE) {
    const { node } = await graphql(INSTANCES, { series: seriesId, first: PAGE, offset });
    for (const instance of node?.instances ?? []) {
      const urlExpiresAt = node.thumbnail?.urlExpiresAt;
      if (instance.frame && urlExpiresAt) loader.addresses.learn(instance.id, { ...instance.frame, urlExpiresAt });
      instances.push(instance);
    }
    if ((node?.instances ?? []).length < PAGE) return new Stack(seriesId, instances);
  }
}

class Stack {
  /** @type {Place[]} */
  places = [];
  #planes = new Map(); // Instance -> its frames with position and orientation, where there are several.

  constructor(seriesId, instances) {
    this.series = seriesId;
    this.instances = instances;
    for (const instance of instances) {
      for (let frameIndex = 0; frameIndex < Math.max(1, instance.numberOfFrames); frameIndex++) {
        this.places.push({ instance, frameIndex });
      }
    }
  }

  get length() {
    return this.places.length;
  }

  /** What a StackController shows: null where there is no picture. */
  get frames() {
    return this.places.map(({ instance, frameIndex }) =>
      instance.numberOfFrames > 0 ? { instanceId: instance.id, index: frameIndex } : null,
    );
  }

  /** The position of a frame, or -1. */
  find(instanceId, frameIndex = 0) {
    return this.places.findIndex((place) => place.instance.id === instanceId && place.frameIndex === frameIndex);
  }

  /** Ask where the frames of multi-frame instances lie; `planeAt` knows it afterwards. */
  async readPlanes() {
    const several = this.instances.filter(({ id, numberOfFrames, imageOrientationPatient }) =>
      numberOfFrames > 1 && imageOrientationPatient && !this.#planes.has(id));
    for (const { id } of several) {
      const { node } = await graphql(PLANES, { id });
      this.#planes.set(id, node?.frames ?? []);
    }
  }

  /** The plane of a position in the patient; null where it is unknown. */
  planeAt(position) {
    const place = this.places[position];
    if (!place) return null;
    const { instance, frameIndex } = place;
    const frame = instance.numberOfFrames > 1
      ? this.#planes.get(instance.id)?.[frameIndex]
      : { position: instance.imagePositionPatient, orientation: instance.imageOrientationPatient };
    if (!frame?.position || !frame.orientation) return null;
    const spacing = instance.pixelSpacing ?? [1, 1];
    const { columns, rows, frameOfReferenceUID } = instance;
    return { ...frame, spacing, columns, rows, frameOfReferenceUID };
  }
}
