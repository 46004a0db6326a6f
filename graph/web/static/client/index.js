// What the npm package exports; the study browser imports the modules one by one.
export { Connection, ServerError } from "./connection.js";
export { AddressBook, variantOf } from "./addresses.js";
export { Picture, PictureError } from "./picture.js";
export { PictureLoader, usualBudget } from "./loader.js";
export { StackController } from "./stack.js";
export { CineController } from "./cine.js";
export { batchesOf, uploadAll } from "./upload.js";
export * as geometry from "./geometry.js";
