// What the package exports. The modules are those of the study browser, copied here by build.mjs.
export { Connection, ServerError } from "./connection.js";
export { AddressBook, variantOf } from "./addresses.js";
export { Picture, PictureError } from "./picture.js";
export { PictureLoader, usualBudget } from "./loader.js";
export { StackController } from "./stack.js";
export { CineController } from "./cine.js";
export { batchesOf, uploadAll } from "./upload.js";
export * as geometry from "./geometry.js";
