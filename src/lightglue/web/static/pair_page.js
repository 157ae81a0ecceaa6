/* The pair: two images in, what is found of them out. */

export function mount() {
  return {};
}
