// Texts of users, as a page may show them.
const STEERING = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A text in which characters that steer, such as those of bidirectional text, stand as their numbers. */
export const plain = (text) =>
  text.replace(STEERING, (found) => `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
