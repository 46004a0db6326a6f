// Dropped or chosen files as a flat list; folders are read recursively.

// Files that operating systems create in folders; they are not uploaded.
const LITTER = new Set([".DS_Store", "Thumbs.db", "desktop.ini"]);

/** The files of a drop. Call it inside the event handler: afterwards the browser discards the items. */
export function readDrop(dataTransfer) {
  const entries = [...dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return Promise.resolve(readFiles(dataTransfer.files));
  return readEntries(entries);
}

/** Chosen files as {file, name}; the name includes the folders. */
export function readFiles(files) {
  return [...files].filter((file) => !LITTER.has(file.name)).map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

async function readEntries(entries) {
  const found = [];
  const waiting = [...entries];
  while (waiting.length > 0) {
    const entry = waiting.shift();
    if (entry.isDirectory) waiting.push(...(await readFolder(entry)));
    else if (!LITTER.has(entry.name)) found.push({ file: await fileOf(entry), name: entry.fullPath.slice(1) });
  }
  return found;
}

// A reader returns at most 100 entries at a time; an empty array is the end.
async function readFolder(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return all;
    all.push(...some);
  }
}

const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));
