// Image files out of what was dropped or chosen: folders are gone through, and what is no image is left out.

const IMAGES = /\.(jpe?g|png|webp|tiff?|bmp|avif|heic|heif)$/i;

/** Files of a drop, with `path` under the folder that was dropped. */
export async function droppedFiles(transfer) {
  // Entries must be taken before the first wait: the list is empty after that.
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) await walk(entry, "", found);
  return found;
}

/** Files of an input. */
export function chosenFiles(files) {
  return [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

async function walk(entry, folder, found) {
  if (!entry) return;
  if (entry instanceof File) found.push({ file: entry, path: entry.name });
  else if (entry.isFile) {
    const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
    if (file) found.push({ file, path: folder + entry.name });
  } else {
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
      if (!some.length) break; // they come in parts, 100 at a time in Chromium
      for (const each of some) await walk(each, `${folder}${entry.name}/`, found);
    }
  }
}

/** The images among files, by name as people sort them, without the folder that all are in; and how many others. */
export function imagesAmong(files) {
  const shown = files.filter((each) => !each.path.split("/").some((part) => part.startsWith(".")));
  const images = shown.filter((each) => each.file.type.startsWith("image/") || IMAGES.test(each.path));
  const first = images[0]?.path.split("/")[0];
  const isCommon = images.every((each) => each.path.includes("/") && each.path.split("/")[0] === first);
  const named = images.map(({ file, path }) => ({ file, name: isCommon ? path.slice(first.length + 1) : path }));
  named.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }) || (a.name < b.name ? -1 : 1));
  const names = new Map(); // two files of one name, from two drops
  for (const each of named) {
    const count = (names.get(each.name) ?? 0) + 1;
    names.set(each.name, count);
    if (count > 1) each.name = each.name.replace(/(\.[^./]*)?$/, (ending) => ` (${count})${ending}`);
  }
  return { images: named, others: shown.length - images.length, folder: isCommon ? first : "" };
}
