/**
 * Text from a server or a command line, made fit for a terminal: no control characters (they could move the cursor, or
 * pretend to be another line), none that turn the reading direction, and no password out of a URL.
 */

const unfit = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu

const escapes: { readonly [character: string]: string } = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

const escapeCharacter = (character: string): string =>
  escapes[character] ?? `\\u{${character.codePointAt(0)!.toString(16)}}`

/**
 * The text on one line, every unfit character as an escape.
 *
 * @example
 * plainText("a\u001b[2Jb") // => "a\\u{1b}[2Jb"
 */
export const plainText = (text: string): string => text.replace(unfit, escapeCharacter)

/** Takes the password out of every URL in the text, and out of `password=...`. */
export const withoutSecrets = (text: string): string =>
  text
    .replaceAll(/([a-z][a-z0-9+.-]*:\/\/[^\s:@/]*:)[^\s"]*@/gi, "$1***@")
    .replaceAll(/\b((?:ssl)?password=)[^\s&"]+/gi, "$1***")
